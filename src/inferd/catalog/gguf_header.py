"""What a GGUF file says about itself, and whether it can be believed.

A file that contradicts itself or its own size is refused with a sentence before an engine sees it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from inferd.catalog.gguf_cursor import Cursor, LieError, ShortError, alignment_of
from inferd.catalog.gguf_types import Array, Field, Tensor, Value
from inferd.errors import BadRequest

_HEADER_BYTES_MAX = 256 << 20
_FIRST_READ_BYTES = 4 << 20


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
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            return None
        return value

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
                    return _parse(file.read(wanted), size_bytes)
                except ShortError:
                    # The header goes on behind what was read: read twice as much, from the start.
                    wanted *= 2
                if wanted > _HEADER_BYTES_MAX:
                    raise LieError(f"its header is over {_HEADER_BYTES_MAX >> 20} MiB")  # noqa: TRY301 - one sentence for all lies
    except LieError as lie:
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


def _parse(buffer: bytes, size_bytes: int) -> GgufHeader:
    cursor = Cursor(buffer, size_bytes)
    version, tensor_count, field_count = cursor.start()
    fields = cursor.fields(field_count)
    fields_end = cursor.at
    alignment = alignment_of(fields)
    tensors = cursor.tensors(tensor_count, alignment)
    return GgufHeader(
        version=version,
        alignment=alignment,
        fields=fields,
        tensors=tensors,
        fields_end=fields_end,
        size_bytes=size_bytes,
        bos_text=cursor.token(fields, "tokenizer.ggml.bos_token_id"),
        eos_text=cursor.token(fields, "tokenizer.ggml.eos_token_id"),
    )
