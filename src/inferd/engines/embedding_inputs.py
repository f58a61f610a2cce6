"""What embedding engines share: prefixes before texts, checks of tokens, the last event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, ContextLengthExceeded
from inferd.tasks.base import Usage
from inferd.tasks.embeddings import Embedded, EmbeddingsRequest

if TYPE_CHECKING:
    from inferd.engines.encoder_model import Vector


def prefixed(card: ModelCard, request: EmbeddingsRequest, text: str) -> str:
    """The text as the model was trained to see it."""
    if request.instruction:
        template = str(card.options.get("instruction", ""))
        if not template:
            raise BadRequest(
                f"The model {card.name} takes no instruction.", param="custom_instruction"
            )
        before, _, after = template.partition("{text}")
        return before.replace("{instruction}", request.instruction) + text + after
    if request.input_type is None:
        return text
    return str(card.options.get(f"{request.input_type}_prefix", "")) + text


def check_rows(rows: list[list[int]], card: ModelCard, vocabulary_size: int) -> None:
    """Raise ContextLengthExceeded or BadRequest for token ids that the model cannot take."""
    for index, row in enumerate(rows):
        if len(row) > card.context_length:
            raise ContextLengthExceeded(
                f"Text {index} has {len(row)} tokens; the model takes {card.context_length}.",
                param="input",
            )
        if not row or not 0 <= min(row) <= max(row) < vocabulary_size:
            raise BadRequest(f"Text {index} has tokens that the model lacks.", param="input")


def ending(
    card: ModelCard, request: EmbeddingsRequest, vectors: list[Vector], usage: Usage
) -> Embedded:
    """All vectors in the shape that was asked for."""
    # Imports numpy, which the gateway does not: it asks this engine's module for its memory.
    from inferd.engines.encoder_model import shaped

    wanted = request.normalize
    normalize = bool(card.options.get("normalize", True)) if wanted is None else wanted
    matrix = shaped(vectors, request.dimensions, normalize=normalize)
    return Embedded(matrix.tobytes(), matrix.shape[1], usage)
