"""Writes a projector with random weights: pictures go through llama.cpp, and mean nothing.

For tests of everything around a vision model. The tower is a two-layer ViT of width 64 for
56 x 56 pixels in patches of 14, which makes 16 tokens of each picture; the names of keys and
tensors are those that llama.cpp's `clip` architecture reads.

    python -m scripts.make_mmproj WIDTH TARGET    # width: the language model's, 576 for SmolLM2
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path
from typing import NamedTuple

SIDE, PATCH, WIDTH, INNER, LAYERS, HEADS = 56, 14, 64, 128, 2, 4
TOKENS = (SIDE // PATCH) ** 2
"""What llama.cpp makes of each picture."""
_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9
_ALIGNMENT = 32


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    """In GGUF's order: the fastest axis first."""
    fill: float | None
    """One value everywhere; None: drawn at random."""


def make_mmproj(width: int, target: Path, *, seed: int = 0) -> None:
    """Write the projector for a language model of this width."""
    draw = random.Random(seed)
    tensors = _tensors(width)
    head, bodies, offset = bytearray(), bytearray(), 0
    for tensor in tensors:
        head += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, 0, offset)
        count = 1
        for side in tensor.shape:
            count *= side
        values = (
            [draw.gauss(0, 0.02) for _ in range(count)]
            if tensor.fill is None
            else [tensor.fill] * count
        )
        body = struct.pack(f"<{count}f", *values)
        body += bytes(-len(body) % _ALIGNMENT)
        bodies += body
        offset += len(body)
    keys = _keys(width)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    whole = start + b"".join(keys) + head
    target.write_bytes(whole + bytes(-len(whole) % _ALIGNMENT) + bodies)


def _keys(width: int) -> list[bytes]:
    vision = {
        "image_size": SIDE,
        "patch_size": PATCH,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "projection_dim": width,
        "block_count": LAYERS,
        "attention.head_count": HEADS,
    }
    mean = struct.pack("<IQ3f", _F32, 3, 0.5, 0.5, 0.5)
    return [
        _key("general.architecture", _STRING, _text("clip")),
        _key("general.type", _STRING, _text("mmproj")),
        _key("clip.has_vision_encoder", _BOOL, b"\x01"),
        _key("clip.projector_type", _STRING, _text("mlp")),
        _key("clip.use_gelu", _BOOL, b"\x01"),
        *(
            _key(f"clip.vision.{name}", _U32, struct.pack("<I", value))
            for name, value in vision.items()
        ),
        _key("clip.vision.attention.layer_norm_epsilon", _F32, struct.pack("<f", 1e-5)),
        _key("clip.vision.image_mean", _ARRAY, mean),
        _key("clip.vision.image_std", _ARRAY, mean),
    ]


def _tensors(width: int) -> list[_Tensor]:
    found = [
        _Tensor("v.class_embd", (WIDTH,), None),
        _Tensor("v.patch_embd.weight", (PATCH, PATCH, 3, WIDTH), None),
        _Tensor("v.position_embd.weight", (WIDTH, TOKENS + 1), None),
        *_norm("v.pre_ln"),
    ]
    for layer in range(LAYERS):
        at = f"v.blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            found += _linear(f"{at}.{name}", WIDTH, WIDTH)
        found += [*_norm(f"{at}.ln1"), *_norm(f"{at}.ln2")]
        found += _linear(f"{at}.ffn_up", WIDTH, INNER) + _linear(f"{at}.ffn_down", INNER, WIDTH)
    return found + _linear("mm.0", WIDTH, width) + _linear("mm.2", width, width)


def _norm(name: str) -> list[_Tensor]:
    return [_Tensor(f"{name}.weight", (WIDTH,), 1), _Tensor(f"{name}.bias", (WIDTH,), 0)]


def _linear(name: str, inputs: int, outputs: int) -> list[_Tensor]:
    weight = _Tensor(f"{name}.weight", (inputs, outputs), None)
    return [weight, _Tensor(f"{name}.bias", (outputs,), 0)]


def _key(name: str, kind: int, value: bytes) -> bytes:
    return _text(name) + struct.pack("<I", kind) + value


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


if __name__ == "__main__":
    make_mmproj(int(sys.argv[1]), Path(sys.argv[2]))
