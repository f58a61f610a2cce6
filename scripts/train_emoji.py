"""Trains `inferd/emoji-flow`: pictures of emoji from text, a rectified flow in a linear latent.

Made for this project and small on purpose. What it learns from is the glyphs of Noto Color Emoji
(SIL Open Font License 1.1) and their Unicode names; what it turns names into numbers with is the
packaged all-MiniLM-L6-v2. It knows that icon set and nothing else.

    latent    x = (image − mean) · Vᵀ / scale          principal components of the glyphs
    path      x_t = (1 − t) · noise + t · x            (Liu et al., 2022, arXiv 2209.03003)
    loss      |v(x_t, t, text) − (x − noise)|², large components weighted more
    guidance  text is dropped in a tenth of the steps (Ho and Salimans, 2022, arXiv 2207.12598)

Needs torch, onnx, onnxruntime, tokenizers, pillow and fonttools, none of which inferd installs.

    python scripts/train_emoji.py --font NotoColorEmoji.ttf --minilm DIR --out DIR --seconds 1500

DIR of MiniLM holds model.onnx and tokenizer.json, as the card of all-MiniLM-L6-v2 pins them.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import time
import unicodedata
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from fontTools.ttLib import TTFont
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer
from torch import nn

SIDE = 48
COMPONENTS = 320
WIDTH, BLOCKS, TEXT_WIDTH = 448, 4, 384
TEMPLATES = ("{}", "an emoji of {}", "a picture of a {}", "{} icon")
BATCH = 128
HELD_OUT = 40
"""Names that are never trained on, to see what the text encoder carries over."""


def glyphs(font_path: Path) -> tuple[np.ndarray, list[str]]:
    """(n, SIDE, SIDE, 3) bytes and the Unicode names, of single code points with colour."""
    points = TTFont(font_path).getBestCmap()
    font = ImageFont.truetype(str(font_path), 109)
    pictures, names = [], []
    for point in sorted(points):
        modifier = 0x1F3FB <= point <= 0x1F3FF or 0x1F1E6 <= point <= 0x1F1FF
        if point <= 0x2190 or modifier or point >= 0xE0000 or point in (0x200D, 0x20E3, 0xFE0F):
            continue
        name = unicodedata.name(chr(point), "").lower()
        canvas = Image.new("RGBA", (136, 128), "white")
        ImageDraw.Draw(canvas).text((0, 0), chr(point), font=font, embedded_color=True)
        small = np.asarray(canvas.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        if name and small.std() >= 5:
            pictures.append(small)
            names.append(name)
    return np.stack(pictures), names


class Words:
    """MiniLM: texts to unit vectors."""

    def __init__(self, folder: Path) -> None:
        self._session = ort.InferenceSession(str(folder / "model.onnx"))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_padding()
        self._tokenizer.enable_truncation(32)

    def __call__(self, texts: list[str]) -> np.ndarray:
        rows = []
        for at in range(0, len(texts), 64):
            encoded = self._tokenizer.encode_batch(texts[at : at + 64])
            ids = np.array([one.ids for one in encoded], np.int64)
            mask = np.array([one.attention_mask for one in encoded], np.int64)
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
            hidden = self._session.run(None, feeds)[0]
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            rows.append(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))
        return np.concatenate(rows).astype(np.float32)


class Velocity(nn.Module):
    """Residual blocks whose norm is shifted, scaled and gated by time and text (adaLN)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(COMPONENTS, WIDTH), nn.Linear(WIDTH, COMPONENTS)
        self.time = nn.Sequential(nn.Linear(64, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.text = nn.Linear(TEXT_WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.steer = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(BLOCKS))
        self.up = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(BLOCKS))
        self.down = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in range(BLOCKS))
        for layer in (*self.steer, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("rates", torch.exp(torch.linspace(0, math.log(1000), 32)))

    def forward(self, z: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        angle = t[:, None] * self.rates[None]
        # Unit vectors of 384 numbers have small ones; 4 brings them near the time's size.
        told = self.time(torch.cat([angle.sin(), angle.cos()], -1)) + 4 * self.text(text)
        told, hidden = nn.functional.silu(told), self.enter(z)
        for steer, up, down in zip(self.steer, self.up, self.down, strict=True):
            scale, shift, gate = steer(told).chunk(3, -1)
            inner = self.norm(hidden) * (1 + scale) + shift
            hidden = hidden + gate * down(nn.functional.silu(up(inner)))
        return self.leave(hidden)


class Decoder(nn.Module):
    """Latents to bytes, as floats from 0 to 255."""

    def __init__(self, basis: np.ndarray, mean: np.ndarray) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.tensor(basis, dtype=torch.float32))
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float32))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        flat = (z @ self.basis + self.mean).clamp(-1, 1)
        return (flat * 127.5 + 127.5).reshape(-1, SIDE, SIDE, 3)


def train(latents: np.ndarray, texts: np.ndarray, weight: np.ndarray, seconds: float) -> nn.Module:
    """Follow the straight path from noise to each glyph until the time is over."""
    net, random = Velocity(), torch.Generator().manual_seed(0)
    average = copy.deepcopy(net)
    goals, words = torch.tensor(latents), torch.tensor(texts)
    weights = torch.tensor(weight, dtype=torch.float32)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.01)
    began, step = time.monotonic(), 0
    while (gone := (time.monotonic() - began) / seconds) < 1:
        rate = 1e-3 * min(1, step / 200) * (0.5 + 0.5 * math.cos(math.pi * gone))
        optimiser.param_groups[0]["lr"] = rate
        index = torch.randint(0, len(goals), (BATCH,), generator=random)
        template = torch.randint(0, len(TEMPLATES), (BATCH,), generator=random)
        goal = goals[index]
        text = words[template, index] + 0.02 * torch.randn(BATCH, TEXT_WIDTH, generator=random)
        text = text * (torch.rand(BATCH, 1, generator=random) > 0.1)
        t = torch.sigmoid(torch.randn(BATCH, generator=random))
        noise = torch.randn(goal.shape, generator=random)
        between = (1 - t)[:, None] * noise + t[:, None] * goal
        loss = (((net(between, t, text) - (goal - noise)) * weights) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            keep = 0.002 if step > 500 else 0.02
            for mean, now in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(now, keep)
        step += 1
        if step % 500 == 0:
            print(f"step {step}: loss {loss.item():.4f}, {gone:.0%}", flush=True)
    return average.eval()


def export(net: nn.Module, decoder: nn.Module, out: Path) -> None:
    """Both networks as ONNX with 8-bit weights."""
    z, t, text = torch.zeros(1, COMPONENTS), torch.ones(1), torch.zeros(1, TEXT_WIDTH)
    for name, module, inputs, names, output in (
        ("velocity", net, (z, t, text), ["z", "t", "text"], "v"),
        ("decoder", decoder, (z,), ["z"], "rgb"),
    ):
        whole = out / f"{name}.fp32.onnx"
        torch.onnx.export(
            module,
            inputs,
            str(whole),
            input_names=names,
            output_names=[output],
            dynamic_axes={one: {0: "batch"} for one in (*names, output)},
            opset_version=17,
            dynamo=False,
        )
        small = out / f"{name}.int8.onnx"
        quantize_dynamic(str(whole), str(small), weight_type=QuantType.QInt8)
        whole.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--font", "--minilm", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1500)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    pictures, names = glyphs(given.font)
    order = np.random.default_rng(0).permutation(len(names))
    kept = np.sort(order[HELD_OUT:])
    flat = pictures[kept].reshape(len(kept), -1).astype(np.float32) / 127.5 - 1
    mean = flat.mean(0)
    _, sizes, basis = np.linalg.svd(flat - mean, full_matrices=False)
    latents = (flat - mean) @ basis[:COMPONENTS].T
    scale = np.maximum(latents.std(0), latents.std(0)[0] * 0.02)
    kept_share = (sizes[:COMPONENTS] ** 2).sum() / (sizes**2).sum()
    print(f"{len(kept)} glyphs, {kept_share:.1%} of their variance", flush=True)
    words = Words(given.minilm)
    texts = np.stack([words([one.format(names[i]) for i in kept]) for one in TEMPLATES])
    net = train(latents / scale, texts, (scale / scale[0]) ** 0.7, given.seconds)
    export(net, Decoder(basis[:COMPONENTS] * scale[:, None], mean), given.out)
    facts = {
        "font_sha256": hashlib.sha256(given.font.read_bytes()).hexdigest(),
        "trained_on": [names[i] for i in kept],
        "held_out": [names[i] for i in order[:HELD_OUT]],
        "seconds": given.seconds,
    }
    (given.out / "facts.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
