"""What a safetensors file says about itself, and whether it can be believed.

    header length (8 bytes, little-endian) + JSON + the bytes of all tensors, without a gap

A file that contradicts itself or its own size is refused with a sentence before an engine sees it.
"""

from __future__ import annotations

from math import prod
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
from msgspec import Meta

from inferd.errors import BadRequest

HEADER_BYTES_MAX = 100 << 20
"""The library's own limit."""
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_DIMENSIONS_MAX = 16
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}

Count = Annotated[int, Meta(ge=0, le=2**53)]


class SafeTensor(msgspec.Struct, frozen=True):
    """One tensor as the header describes it."""

    dtype: str
    shape: Annotated[list[Count], Meta(max_length=_DIMENSIONS_MAX)]
    data_offsets: tuple[Count, Count]


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


class _Lie(ValueError):
    """The file contradicts itself."""


_header = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tensor = msgspec.json.Decoder(SafeTensor)
_metadata = msgspec.json.Decoder(dict[str, str])


def read_tensors(path: Path) -> dict[str, SafeTensor]:
    """The tensors of a file, checked against its size. BadRequest when it cannot be believed."""
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size_bytes < _LENGTH_BYTES or length > size_bytes - _LENGTH_BYTES:
                raise _Lie("its header is longer than the file")  # noqa: TRY301 - one sentence for all lies
            if length > HEADER_BYTES_MAX:
                raise _Lie(f"its header is over {HEADER_BYTES_MAX >> 20} MiB")  # noqa: TRY301
            tensors = _parsed(file.read(length))
            _check(tensors, size_bytes - _LENGTH_BYTES - length)
    except (_Lie, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as lie:
        reason = str(lie) if isinstance(lie, _Lie) else "its header is not what it should be"
        raise BadRequest(f"The file {path.name} is not usable safetensors: {reason}.") from lie
    except OSError as error:
        raise BadRequest(f"The file {path.name} cannot be read: {error.strerror}.") from error
    return tensors


def check_index(path: Path) -> None:
    """A list of parts names plain files beside it and nothing else. BadRequest otherwise."""
    try:
        index = msgspec.json.decode(path.read_bytes(), type=_Index)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The file {path.name} is no list of parts.") from error
    for name in set(index.weight_map.values()):
        plain = PurePosixPath(name).name == name and name.endswith(".safetensors")
        if not plain or not (path.parent / name).is_file():
            raise BadRequest(f"The file {path.name} names a part that is not beside it.")


def _parsed(header: bytes) -> dict[str, SafeTensor]:
    if not header.startswith(b"{"):
        raise _Lie("its header is not what it should be")
    entries = _header.decode(header)
    if _METADATA in entries:
        _metadata.decode(entries.pop(_METADATA))
    return {name: _tensor.decode(entry) for name, entry in entries.items()}


def _check(tensors: dict[str, SafeTensor], data_bytes: int) -> None:
    """Every tensor has its bytes, no two share any, and none are left over."""
    at = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.data_offsets):
        begin, end = tensor.data_offsets
        bits = _BITS.get(tensor.dtype)
        if bits is None:
            raise _Lie(f"it has an unknown type, {tensor.dtype[:20]!r}")
        if begin != at or end < begin:
            raise _Lie("its tensors overlap, or leave a gap")
        if prod(tensor.shape) * bits != (end - begin) * 8:
            raise _Lie("a tensor has another size than its shape says")
        at = end
    if at != data_bytes:
        raise _Lie(f"its tensors end at byte {at} of {data_bytes}")
