"""Names in a text, from one label a token (IOB tags). Imported in workers only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inferd.engines.classifier_model import softmax
from inferd.engines.onnx import Array
from inferd.engines.transformers_text import Row
from inferd.tasks.classification import Entity


class _Word(NamedTuple):
    tag: str
    """With its B- or I-."""
    score: float
    start: int
    end: int

    @property
    def group(self) -> str:
        """Without it."""
        return self.tag[2:] if self.tag[:2] in ("B-", "I-") else self.tag


def entities(text: str, row: Row, logits: Array, names: list[str]) -> tuple[Entity, ...]:
    """Words of one kind that follow each other are one name. A word's first token decides."""
    groups: list[list[_Word]] = []
    before: _Word | None = None
    for word in _words(row, softmax(logits), names):
        if word.group == "O":
            before = None
            continue
        if before is not None and word.group == before.group and not word.tag.startswith("B-"):
            groups[-1].append(word)
        else:
            groups.append([word])
        before = word
    return tuple(_entity(text, group) for group in groups)


def _words(row: Row, scores: Array, names: list[str]) -> list[_Word]:
    words: list[_Word] = []
    last: int | None = None
    for at, (word, (start, end)) in enumerate(zip(row.words, row.offsets, strict=True)):
        if word is None:
            last = None
        elif word == last:
            words[-1] = words[-1]._replace(end=end)
        else:
            best = int(scores[at].argmax())
            words.append(_Word(names[best], float(scores[at][best]), start, end))
            last = word
    return words


def _entity(text: str, group: list[_Word]) -> Entity:
    start, end = group[0].start, group[-1].end
    # Some tokenizers count the space before a word as part of it.
    start += len(text[start:end]) - len(text[start:end].lstrip())
    score = float(np.mean([word.score for word in group]))
    return Entity(group[0].group, score, text[start:end], start, end)
