"""Embeddings: texts in, one vector each out."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.tasks.base import Usage

INPUTS_MAX = 1024
DIMENSIONS_MIN, DIMENSIONS_MAX = 32, 16_384
NUMBERS_MAX = 1024 * 4096
"""Of one answer whose dimensions are asked for: the most inputs at the size of the largest models.
As JSON 80 MB, which are sent as they are written."""

InputType = Literal["query", "passage"]


class EmbeddingsRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="embeddings"):
    """One validated request."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    """1 to INPUTS_MAX texts, or token ids of the model's own vocabulary."""
    normalize: bool | None = None
    """Vectors of length 1; None: as the card says."""
    dimensions: int | None = None
    """None: the model's own. Fewer cuts, more pads with zeros (deepinfra-api 4.5)."""
    input_type: InputType | None = None
    """Which prefix an asymmetric model puts before each text."""
    instruction: str | None = None
    """What the vectors are for, where a model was trained to be told."""

    def input_bytes(self) -> int:
        """UTF-8 bytes of all texts, or their token ids: an upper bound on the tokens."""
        return sum(
            len(one.encode("utf-8", "replace")) if isinstance(one, str) else len(one)
            for one in self.inputs
        )


class Embedded(msgspec.Struct, frozen=True, array_like=True, tag="embedded"):
    """All vectors, in the order of the inputs; the last event."""

    vectors: bytes
    """float32, little-endian, shape (inputs, dimensions), row by row."""
    dimensions: int
    usage: Usage


EmbeddingsEvent = Embedded
