"""What a GGUF file says about itself, and whether it can be believed.

Every count, length and offset is checked against the size of the file before it is used, so a
file that lies is refused with a sentence before an engine sees it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from inferd.catalog.gguf_types import ARRAY, BLOCKS, MAGIC, SCALARS, STRING, UINT32, tensor_bytes
from inferd.errors import BadRequest

_HEADER_BYTES_MAX = 256 << 20
_FIRST_READ_BYTES = 4 << 20
_KEY_BYTES_MAX = 65_535
_STRING_BYTES_MAX = 16 << 20
_ENTRIES_MAX = 65_536
_ARRAY_VALUES_MAX = 4_096
"""Numeric arrays up to this length are kept; of longer ones only the length."""
_DIMENSIONS_MAX = 4
_ALIGNMENT_MAX = 65_536


class Array(msgspec.Struct, frozen=True):
    """An array of the metadata, by its length."""

    kind: int
    length: int
    at: int
    """Where its first element lies in the file."""
    values: tuple[int | float | bool, ...] = ()
    """The elements of a short numeric array."""


Value = int | float | bool | str | Array


class Field(msgspec.Struct, frozen=True):
    """One entry of the metadata."""

    kind: int
    at: int
    """Where the value lies in the file."""
    value: Value


class Tensor(msgspec.Struct, frozen=True):
    """One tensor: its type and where its bytes are."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    """From the start of the file."""
    size_bytes: int


class GgufHeader(msgspec.Struct, frozen=True):
    """What a GGUF file says about itself. All of it has been checked against the file's size."""

    version: int
    alignment: int
    fields: dict[str, Field]
    tensors: tuple[Tensor, ...]
    fields_end: int
    """Where the metadata ends and the table of tensors starts."""
    size_bytes: int
    """Of the whole file."""
    bos_text: str | None = None
    eos_text: str | None = None

    def value(self, key: str) -> Value | None:
        """A value of the metadata, None when absent."""
        field = self.fields.get(key)
        return None if field is None else field.value

    def count(self, key: str) -> int | None:
        """A non-negative integer of the metadata; None when absent or something else."""
        value = self.value(key)
        return value if isinstance(value, int) and value >= 0 else None

    def text(self, key: str) -> str | None:
        """A string of the metadata; None when absent or something else."""
        value = self.value(key)
        return value if isinstance(value, str) else None

    @property
    def architecture(self) -> str:
        """Such as "llama"."""
        return self.text("general.architecture") or ""

    def of_architecture(self, name: str) -> int | None:
        """A count under the architecture's prefix, such as "context_length"."""
        return self.count(f"{self.architecture}.{name}")

    @property
    def context_length(self) -> int | None:
        """Tokens that the model was trained for."""
        return self.of_architecture("context_length")

    @property
    def block_count(self) -> int | None:
        """Layers."""
        return self.of_architecture("block_count")

    @property
    def embedding_length(self) -> int | None:
        """Width of the hidden state."""
        return self.of_architecture("embedding_length")

    @property
    def head_count(self) -> int | None:
        """Attention heads; None where it differs by layer."""
        return self.of_architecture("attention.head_count")

    @property
    def chat_template(self) -> str | None:
        """The Jinja source that came with the model. Untrusted: render it in a sandbox only."""
        return self.text("tokenizer.chat_template")

    @property
    def bos_id(self) -> int | None:
        """Token that starts a sequence."""
        return self.count("tokenizer.ggml.bos_token_id")

    @property
    def eos_id(self) -> int | None:
        """Token that ends a turn."""
        return self.count("tokenizer.ggml.eos_token_id")

    @property
    def add_bos(self) -> bool | None:
        """The tokenizer puts `bos` first by itself; None when the file does not say."""
        value = self.value("tokenizer.ggml.add_bos_token")
        return value if isinstance(value, bool) else None

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors)


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file (v2, v3). BadRequest when it cannot be believed."""
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            wanted = _FIRST_READ_BYTES
            while True:
                file.seek(0)
                try:
                    return _Reader(file.read(wanted), size_bytes).header()
                except _ShortError:
                    # The header goes on behind what was read: read twice as much, from the start.
                    wanted *= 2
                if wanted > _HEADER_BYTES_MAX:
                    raise _LieError(f"its header is over {_HEADER_BYTES_MAX >> 20} MiB")  # noqa: TRY301 - one sentence for all lies
    except _LieError as lie:
        raise BadRequest(f"The file {path.name} is not a usable GGUF model: {lie}.") from lie
    except OSError as error:
        raise BadRequest(f"The file {path.name} cannot be read: {error.strerror}.") from error


def kv_cache_bytes_per_token(header: GgufHeader) -> int:
    """Bytes that one token takes in a key-value cache of 16-bit floats: an upper bound."""
    layers, width = header.block_count or 0, header.embedding_length or 0
    heads = header.head_count or 0
    head_width = width // heads if heads else width
    key = header.of_architecture("attention.key_length") or head_width
    value = header.of_architecture("attention.value_length") or head_width
    return _kv_heads(header, layers, heads or 1) * (key + value) * 2


def _kv_heads(header: GgufHeader, layers: int, heads: int) -> int:
    """Key-value heads of all layers together."""
    found = header.value(f"{header.architecture}.attention.head_count_kv")
    if isinstance(found, Array) and found.values:
        return sum(int(count) for count in found.values)
    return layers * (found if isinstance(found, int) and found > 0 else heads)


class _LieError(ValueError):
    """The file contradicts itself."""


class _ShortError(Exception):
    """The header goes on behind the bytes at hand, inside the file."""


class _Reader:
    """A cursor over the first bytes of a file; no step leaves the file."""

    def __init__(self, buffer: bytes, size_bytes: int) -> None:
        self._buffer = buffer
        self._size_bytes = size_bytes
        self._at = 0

    def header(self) -> GgufHeader:
        version, tensor_count, field_count = self._start()
        fields = self._fields(field_count)
        fields_end = self._at
        alignment = _alignment(fields)
        tensors = self._tensors(tensor_count, alignment)
        return GgufHeader(
            version=version,
            alignment=alignment,
            fields=fields,
            tensors=tensors,
            fields_end=fields_end,
            size_bytes=self._size_bytes,
            bos_text=self._token(fields, "tokenizer.ggml.bos_token_id"),
            eos_text=self._token(fields, "tokenizer.ggml.eos_token_id"),
        )

    def _start(self) -> tuple[int, int, int]:
        if self._bytes(4) != MAGIC:
            raise _LieError("it does not start with the letters GGUF")
        version = int(self._scalar(UINT32))
        if version not in (2, 3):
            raise _LieError(f"version {version:#x} is neither 2 nor 3, little-endian")
        tensor_count, field_count = self._count(), self._count()
        if max(tensor_count, field_count) > _ENTRIES_MAX:
            raise _LieError(f"it claims {tensor_count} tensors and {field_count} fields")
        return version, tensor_count, field_count

    def _fields(self, count: int) -> dict[str, Field]:
        fields: dict[str, Field] = {}
        for _ in range(count):
            key = self._text(_KEY_BYTES_MAX)
            kind = int(self._scalar(UINT32))
            at = self._at
            if key in fields:
                raise _LieError(f"the field {_short(key)} is there twice")
            fields[key] = Field(kind, at, self._value(kind))
        return fields

    def _value(self, kind: int) -> Value:
        if kind == STRING:
            return self._text(_STRING_BYTES_MAX)
        if kind == ARRAY:
            return self._array()
        if kind not in SCALARS:
            raise _LieError(f"a field has the unknown type {kind}")
        return self._scalar(kind)

    def _array(self) -> Array:
        kind, length = int(self._scalar(UINT32)), self._count()
        at = self._at
        if kind == STRING:
            self._room(length * 8)
            self._skip_strings(length)
            return Array(kind, length, at)
        if kind not in SCALARS:
            raise _LieError(f"an array has the unknown element type {kind}")
        width = SCALARS[kind].size
        self._room(length * width)
        if length > _ARRAY_VALUES_MAX:
            self._at += length * width
            return Array(kind, length, at)
        return Array(kind, length, at, tuple(self._scalar(kind) for _ in range(length)))

    def _skip_strings(self, count: int) -> None:
        """The one hot loop: a vocabulary and its merges are some 100,000 strings."""
        unpack, buffer, at = SCALARS[10].unpack_from, self._buffer, self._at
        end = len(buffer) - 8
        for _ in range(count):
            if at > end:
                self._at = at
                self._room(8)
                raise _ShortError
            at += 8 + unpack(buffer, at)[0]
        self._at = at
        self._room(0)

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        listed = [self._tensor() for _ in range(count)]
        start = -(-self._at // alignment) * alignment
        names = {tensor.name for tensor in listed}
        if len(names) < len(listed):
            raise _LieError("two tensors have the same name")
        placed = tuple(
            msgspec.structs.replace(tensor, offset=start + tensor.offset) for tensor in listed
        )
        self._check_places(placed, start, alignment)
        return placed

    def _tensor(self) -> Tensor:
        name = self._text(_KEY_BYTES_MAX)
        dimensions = int(self._scalar(UINT32))
        if not 1 <= dimensions <= _DIMENSIONS_MAX:
            raise _LieError(f"the tensor {_short(name)} has {dimensions} dimensions")
        shape = tuple(self._count() for _ in range(dimensions))
        kind, offset = int(self._scalar(UINT32)), self._count()
        if kind not in BLOCKS:
            raise _LieError(f"the tensor {_short(name)} has the unknown type {kind}")
        if 0 in shape:
            raise _LieError(f"the tensor {_short(name)} is empty")
        try:
            size_bytes = tensor_bytes(shape, kind)
        except ValueError as error:
            raise _LieError(f"in the tensor {_short(name)} {error}") from error
        return Tensor(name, shape, kind, offset, size_bytes)

    def _check_places(self, tensors: tuple[Tensor, ...], start: int, alignment: int) -> None:
        """Each tensor aligned, inside the file, and on top of no other."""
        end = start
        for tensor in sorted(tensors, key=lambda one: one.offset):
            if tensor.offset % alignment:
                raise _LieError(f"the tensor {_short(tensor.name)} is not aligned")
            if tensor.offset < end:
                raise _LieError(f"the tensor {_short(tensor.name)} overlaps another")
            end = tensor.offset + tensor.size_bytes
            if end > self._size_bytes:
                raise _LieError(
                    f"the tensor {_short(tensor.name)} ends at byte {_number(end)} "
                    f"of a file of {self._size_bytes}"
                )

    def _token(self, fields: dict[str, Field], key: str) -> str | None:
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
            raise _LieError(f"a text of {_number(length)} bytes is over the limit of {length_max}")
        return self._bytes(length).decode("utf-8", "replace")

    def _count(self) -> int:
        return int(self._scalar(10))

    def _scalar(self, kind: int) -> int | float | bool:
        packed = SCALARS[kind]
        self._room(packed.size)
        at = self._at
        if at + packed.size > len(self._buffer):
            raise _ShortError
        self._at = at + packed.size
        return packed.unpack_from(self._buffer, at)[0]

    def _bytes(self, length: int) -> bytes:
        self._room(length)
        at = self._at
        if at + length > len(self._buffer):
            raise _ShortError
        self._at = at + length
        return self._buffer[at : self._at]

    def _room(self, length: int) -> None:
        """The file must have `length` more bytes."""
        if self._at + length > self._size_bytes:
            raise _LieError(
                f"it ends at byte {self._size_bytes}, in the middle of its header"
                if self._at <= self._size_bytes
                else f"a length leads to byte {_number(self._at)} of a file of {self._size_bytes}"
            )


def _alignment(fields: dict[str, Field]) -> int:
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
        raise _LieError("its alignment is no power of two between 8 and 65536")
    return value


def _short(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:64] + "…")


def _number(value: int) -> str:
    # A product of four 64-bit lengths has 77 digits; nobody reads them.
    return str(value) if value < 10**20 else "10^20 or more"
