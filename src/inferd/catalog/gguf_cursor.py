"""Reads the header of a GGUF file step by step, and takes no step out of the file.

Every count, length and offset is checked against the size of the file before it is used.
"""

from __future__ import annotations

import msgspec

from inferd.catalog.gguf_types import (
    ARRAY,
    BLOCKS,
    MAGIC,
    SCALARS,
    STRING,
    UINT32,
    UINT64,
    Array,
    Field,
    Tensor,
    Value,
    tensor_bytes,
)

_KEY_BYTES_MAX = 65_535
_STRING_BYTES_MAX = 16 << 20
_ENTRIES_MAX = 65_536
_ARRAY_VALUES_MAX = 4_096
"""Numeric arrays up to this length are kept; of longer ones only the length."""
_DIMENSIONS_MAX = 4
_ALIGNMENT_MAX = 65_536


class LieError(ValueError):
    """The file contradicts itself."""


class ShortError(Exception):
    """The header goes on behind the bytes at hand, inside the file."""


class Cursor:
    """A cursor over the first bytes of a file; no step leaves the file."""

    def __init__(self, buffer: bytes, size_bytes: int) -> None:
        self._buffer = buffer
        self._size_bytes = size_bytes
        self._at = 0

    @property
    def at(self) -> int:
        """Where the next step reads."""
        return self._at

    def start(self) -> tuple[int, int, int]:
        """Version, number of tensors, number of fields."""
        if self._bytes(4) != MAGIC:
            raise LieError("it does not start with the letters GGUF")
        version = int(self._scalar(UINT32))
        if version not in (2, 3):
            raise LieError(f"version {version:#x} is neither 2 nor 3, little-endian")
        tensor_count, field_count = self._count(), self._count()
        if max(tensor_count, field_count) > _ENTRIES_MAX:
            raise LieError(f"it claims {tensor_count} tensors and {field_count} fields")
        return version, tensor_count, field_count

    def fields(self, count: int) -> dict[str, Field]:
        """The metadata."""
        fields: dict[str, Field] = {}
        for _ in range(count):
            key = self._text(_KEY_BYTES_MAX)
            kind = int(self._scalar(UINT32))
            at = self._at
            if key in fields:
                raise LieError(f"the field {_short(key)} is there twice")
            fields[key] = Field(kind, at, self._value(kind))
        return fields

    def _value(self, kind: int) -> Value:
        if kind == STRING:
            return self._text(_STRING_BYTES_MAX)
        if kind == ARRAY:
            return self._array()
        if kind not in SCALARS:
            raise LieError(f"a field has the unknown type {kind}")
        return self._scalar(kind)

    def _array(self) -> Array:
        kind, length = int(self._scalar(UINT32)), self._count()
        at = self._at
        if kind == STRING:
            self._room(length * 8)
            self._skip_strings(length)
            return Array(kind, length, at)
        if kind not in SCALARS:
            raise LieError(f"an array has the unknown element type {kind}")
        width = SCALARS[kind].size
        self._room(length * width)
        if length > _ARRAY_VALUES_MAX:
            self._at += length * width
            return Array(kind, length, at)
        return Array(kind, length, at, tuple(self._scalar(kind) for _ in range(length)))

    def _skip_strings(self, count: int) -> None:
        """The one hot loop: a vocabulary and its merges are some 100,000 strings."""
        unpack, buffer, at = SCALARS[UINT64].unpack_from, self._buffer, self._at
        end = len(buffer) - 8
        for _ in range(count):
            if at > end:
                self._at = at
                self._room(8)
                raise ShortError
            at += 8 + unpack(buffer, at)[0]
        self._at = at
        self._room(0)

    def tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        """The table of tensors, which the data follow."""
        listed = [self._tensor() for _ in range(count)]
        start = -(-self._at // alignment) * alignment
        names = {tensor.name for tensor in listed}
        if len(names) < len(listed):
            raise LieError("two tensors have the same name")
        placed = tuple(
            msgspec.structs.replace(tensor, offset=start + tensor.offset) for tensor in listed
        )
        self._check_places(placed, start, alignment)
        return placed

    def _tensor(self) -> Tensor:
        name = self._text(_KEY_BYTES_MAX)
        dimensions = int(self._scalar(UINT32))
        if not 1 <= dimensions <= _DIMENSIONS_MAX:
            raise LieError(f"the tensor {_short(name)} has {dimensions} dimensions")
        shape = tuple(self._count() for _ in range(dimensions))
        kind, offset = int(self._scalar(UINT32)), self._count()
        if kind not in BLOCKS:
            raise LieError(f"the tensor {_short(name)} has the unknown type {kind}")
        if 0 in shape:
            raise LieError(f"the tensor {_short(name)} is empty")
        try:
            size_bytes = tensor_bytes(shape, kind)
        except ValueError as error:
            raise LieError(f"in the tensor {_short(name)} {error}") from error
        return Tensor(name, shape, kind, offset, size_bytes)

    def _check_places(self, tensors: tuple[Tensor, ...], start: int, alignment: int) -> None:
        """Each tensor aligned, inside the file, and on top of no other."""
        end = start
        for tensor in sorted(tensors, key=lambda one: one.offset):
            if tensor.offset % alignment:
                raise LieError(f"the tensor {_short(tensor.name)} is not aligned")
            if tensor.offset < end:
                raise LieError(f"the tensor {_short(tensor.name)} overlaps another")
            end = tensor.offset + tensor.size_bytes
            if end > self._size_bytes:
                raise LieError(
                    f"the tensor {_short(tensor.name)} ends at byte {_number(end)} "
                    f"of a file of {self._size_bytes}"
                )

    def token(self, fields: dict[str, Field], key: str) -> str | None:
        """The text of the token that a field names."""
        tokens, field = fields.get("tokenizer.ggml.tokens"), fields.get(key)
        if tokens is None or field is None or not isinstance(tokens.value, Array):
            return None
        array, index = tokens.value, field.value
        if array.kind != STRING or not isinstance(index, int) or not 0 <= index < array.length:
            return None
        self._at = array.at
        self._skip_strings(index)
        return self._text(_STRING_BYTES_MAX)

    def _text(self, length_max: int) -> str:
        length = self._count()
        if length > length_max:
            raise LieError(f"a text of {_number(length)} bytes is over the limit of {length_max}")
        return self._bytes(length).decode("utf-8", "replace")

    def _count(self) -> int:
        return int(self._scalar(UINT64))

    def _scalar(self, kind: int) -> int | float | bool:
        packed = SCALARS[kind]
        self._room(packed.size)
        at = self._at
        if at + packed.size > len(self._buffer):
            raise ShortError
        self._at = at + packed.size
        return packed.unpack_from(self._buffer, at)[0]

    def _bytes(self, length: int) -> bytes:
        self._room(length)
        at = self._at
        if at + length > len(self._buffer):
            raise ShortError
        self._at = at + length
        return self._buffer[at : self._at]

    def _room(self, length: int) -> None:
        """The file must have `length` more bytes."""
        if self._at + length > self._size_bytes:
            raise LieError(
                f"it ends at byte {self._size_bytes}, in the middle of its header"
                if self._at <= self._size_bytes
                else f"a length leads to byte {_number(self._at)} of a file of {self._size_bytes}"
            )


def alignment_of(fields: dict[str, Field]) -> int:
    """The file's alignment: tensors start at its multiples."""
    field = fields.get("general.alignment")
    if field is None:
        return 32
    value = field.value
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not 8 <= value <= _ALIGNMENT_MAX
        or value & (value - 1)
    ):
        raise LieError("its alignment is no power of two between 8 and 65536")
    return value


def _short(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:64] + "…")


def _number(value: int) -> str:
    # A product of four 64-bit lengths has 77 digits; nobody reads them.
    return str(value) if value < 10**20 else "10^20 or more"
