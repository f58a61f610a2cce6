"""Heads that look at a text: labels, names, masks, answers. Imported in workers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from inferd.catalog.card import ModelCard
from inferd.engines.classifier_model import softmax
from inferd.engines.onnx import Array, padded
from inferd.engines.transformers_model import Library, floats
from inferd.errors import ContextLengthExceeded
from inferd.tasks.classification import Label

_UNSET_LENGTH = 1 << 20
"""Tokenizers that do not know their limit claim a larger one."""


class Row(NamedTuple):
    """One text as the model takes it."""

    ids: list[int]
    types: list[int]
    """Segment of each token."""
    offsets: list[tuple[int, int]]
    """Where each token stands in its text, in characters."""
    words: list[int | None]
    """Which word each token is of; None for special ones."""
    sequences: list[int | None]
    """Which of two texts each token is of; None for special ones."""


class TextModel:
    """A model with a tokenizer: rows in, logits out."""

    def __init__(self, card: ModelCard, library: Library) -> None:
        self.library = library
        self.tokenizer: Any = library.tokenizer()
        self.length = _length(card, library, self.tokenizer)
        self._pad = int(self.tokenizer.pad_token_id or 0)
        self._names: set[str] = set(self.tokenizer.model_input_names)

    def row(self, text: str, param: str) -> Row:
        """A text that must fit. Raises ContextLengthExceeded."""
        (row,) = self.rows(text)
        if len(row.ids) > self.length:
            raise ContextLengthExceeded(
                f"{param} has {len(row.ids)} tokens; the model takes {self.length}.", param=param
            )
        return row

    def rows(self, *texts: str, **options: Any) -> list[Row]:
        """One text or a pair as rows; more than one only with the tokenizer's windows."""
        coded: Any = self.tokenizer(*texts, return_offsets_mapping=True, verbose=False, **options)
        encodings: list[Any] = coded.encodings
        return [
            Row(
                list(one.ids),
                list(one.type_ids),
                [(int(start), int(end)) for start, end in one.offsets],
                list(one.word_ids),
                list(one.sequence_ids),
            )
            for one in encodings
        ]

    def run(self, rows: Sequence[Row]) -> Any:
        """The model's outputs of a padded batch."""
        ids, mask = padded([row.ids for row in rows], self._pad)
        feeds = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._names:
            feeds["token_type_ids"] = padded([row.types for row in rows])[0]
        return self.library.run(feeds)

    def logits(self, rows: Sequence[Row]) -> list[Array]:
        """Of each row, without its padding where there is one output a token."""
        found = floats(self.run(rows).logits)
        if found.ndim == 2:
            return list(found)
        return [one[: len(row.ids)] for one, row in zip(found, rows, strict=True)]


def _length(card: ModelCard, library: Library, tokenizer: Any) -> int:
    """Tokens that fit: the least of what card, tokenizer and network say."""
    limits = [int(tokenizer.model_max_length)]
    positions = getattr(library.config, "max_position_embeddings", None)
    if positions:
        # RoBERTa's kind begin to count after the padding token.
        embeddings: Any = getattr(library.model.base_model, "embeddings", None)
        offset = getattr(embeddings, "padding_idx", None)
        limits.append(int(positions) - (0 if offset is None else int(offset) + 1))
    if card.context_length:
        limits.append(card.context_length)
    return min(min(limits), _UNSET_LENGTH)


def label_scores(names: Sequence[str], logits: Array, *, independent: bool) -> tuple[Label, ...]:
    """All labels, the likeliest first; `independent` ones each have a chance of their own."""
    scores = 1 / (1 + np.exp(-logits)) if independent else softmax(logits)
    places: list[int] = np.argsort(-scores, kind="stable").tolist()
    return tuple(Label(names[at], float(scores[at])) for at in places)
