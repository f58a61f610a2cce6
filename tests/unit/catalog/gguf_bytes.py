"""Writes small GGUF files, true ones and lying ones."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import msgspec

U32, F32, BOOL, STR, ARR = 4, 6, 7, 8, 9

Value = int | bool | str | Sequence[str] | Sequence[int]
Fields = Mapping[str, Value]

LLAMA: Fields = {
    "general.architecture": "llama",
    "llama.context_length": 128,
    "llama.block_count": 2,
    "llama.embedding_length": 32,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "general.file_type": 3,
    "tokenizer.ggml.tokens": ["<pad>", "<s>", "</s>", "naïve"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{{ messages }}",
}


class Weights(msgspec.Struct, frozen=True):
    """One tensor. `offset` None: behind the one before."""

    name: str
    shape: tuple[int, ...]
    kind: int = 0
    content: bytes = b""
    offset: int | None = None


def text(value: str) -> bytes:
    """A string as GGUF writes it."""
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def gguf(
    fields: Fields = LLAMA,
    tensors: Sequence[Weights] = (),
    *,
    version: int = 3,
    field_count: int | None = None,
    tensor_count: int | None = None,
) -> bytes:
    """A whole file."""
    out = bytearray(b"GGUF")
    out += struct.pack("<I", version)
    out += struct.pack("<Q", len(tensors) if tensor_count is None else tensor_count)
    out += struct.pack("<Q", len(fields) if field_count is None else field_count)
    for key, value in fields.items():
        out += text(key) + _value(value)
    contents = bytearray()
    for tensor in tensors:
        offset = len(contents) if tensor.offset is None else tensor.offset
        out += text(tensor.name) + struct.pack("<I", len(tensor.shape))
        out += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        out += struct.pack("<IQ", tensor.kind, offset)
        contents += tensor.content + bytes(-len(tensor.content) % 32)
    out += bytes(-len(out) % 32)
    return bytes(out + contents)


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, str):
        return struct.pack("<I", STR) + text(value)
    if value and isinstance(value[0], str):
        listed = b"".join(text(str(one)) for one in value)
        return struct.pack("<IIQ", ARR, STR, len(value)) + listed
    numbers = [int(one) for one in value]
    return struct.pack(f"<IIQ{len(numbers)}I", ARR, U32, len(numbers), *numbers)
