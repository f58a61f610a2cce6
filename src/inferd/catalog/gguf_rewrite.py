"""Writes a GGUF file from another: some tensors left out, some of another type, the rest as is.

The metadata is copied byte by byte, but for numbers that are named, so that nothing of it is
lost in a translation. The new file appears under its name only when it is whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from inferd.catalog.gguf_header import GgufHeader
from inferd.catalog.gguf_types import MAGIC, SCALARS, UINT32, Tensor, tensor_bytes

Convert = Callable[[Tensor, int, bytes], bytes]
"""(tensor, new type, its bytes) → its bytes in the new type."""


class Target(msgspec.Struct, frozen=True):
    """A tensor of the new file: which one of the source, in which type."""

    tensor: Tensor
    kind: int

    @property
    def size_bytes(self) -> int:
        """Bytes in the new type."""
        return tensor_bytes(self.tensor.shape, self.kind)


class Rewrite(msgspec.Struct, frozen=True):
    """What the new file holds."""

    header: GgufHeader
    """Of the source."""
    targets: tuple[Target, ...]
    numbers: dict[str, int]
    """uint32 fields that get another value; each must be in the source."""


def rewrite(source: Path, destination: Path, plan: Rewrite, convert: Convert) -> None:
    """Write `destination` whole or not at all. OSError when the disk does not let it."""
    part = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        with source.open("rb") as old, part.open("wb") as new:
            _write_header(old, new, plan)
            for target, content in _contents(old, plan, convert):
                if len(content) != target.size_bytes:
                    raise ValueError(f"{target.tensor.name} became {len(content)} bytes.")
                new.write(content)
                _pad(new, plan.header.alignment)
            new.flush()
            os.fsync(new.fileno())
        part.replace(destination)
    finally:
        part.unlink(missing_ok=True)


def _contents(old: BinaryIO, plan: Rewrite, convert: Convert) -> Iterable[tuple[Target, bytes]]:
    """One tensor at a time: memory stays at the size of the largest."""
    for target in plan.targets:
        old.seek(target.tensor.offset)
        content = old.read(target.tensor.size_bytes)
        if target.kind != target.tensor.kind:
            content = convert(target.tensor, target.kind, content)
        yield target, content


def _write_header(old: BinaryIO, new: BinaryIO, plan: Rewrite) -> None:
    header = plan.header
    metadata = bytearray(old.read(header.fields_end))
    for key, number in plan.numbers.items():
        field = header.fields[key]
        if field.kind != UINT32:
            raise ValueError(f"The field {key} is no uint32.")
        SCALARS[UINT32].pack_into(metadata, field.at, number)
    struct.pack_into("<4sIQ", metadata, 0, MAGIC, header.version, len(plan.targets))
    new.write(metadata)
    offset = 0
    for target in plan.targets:
        name, shape = target.tensor.name.encode(), target.tensor.shape
        new.write(struct.pack("<Q", len(name)) + name)
        new.write(struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, target.kind, offset))
        offset += -(-target.size_bytes // header.alignment) * header.alignment
    _pad(new, header.alignment)


def _pad(new: BinaryIO, alignment: int) -> None:
    new.write(bytes(-new.tell() % alignment))
