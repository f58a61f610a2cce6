"""The words of a context that answer a question. Imported in workers only.

A context longer than the model is read in windows that overlap by half; the best span of all
windows wins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inferd.engines.classifier_model import softmax
from inferd.engines.onnx import Array
from inferd.engines.transformers_text import Row, TextModel
from inferd.errors import ContextLengthExceeded

ANSWER_TOKENS_MAX = 30
CONTEXT_TOKENS_MIN = 32
"""A window has at least this much of the context beside the question."""


class Span(NamedTuple):
    """A piece of the context, in characters."""

    score: float
    start: int
    end: int


def windows(model: TextModel, question: str, context: str) -> list[Row]:
    """The question with each part of the context. ContextLengthExceeded when it is too long."""
    length = model.length
    asked = len(model.rows(question)[0].ids)
    room = length - asked - 4
    if room < CONTEXT_TOKENS_MIN:
        raise ContextLengthExceeded(
            f"question has {asked} tokens and leaves too few of {length} to the context.",
            param="question",
        )
    return model.rows(
        question,
        context,
        truncation="only_second",
        max_length=length,
        stride=room // 2,
        return_overflowing_tokens=True,
    )


def best_span(row: Row, starts: Array, ends: Array) -> Span:
    """The likeliest span of one window: at most ANSWER_TOKENS_MAX tokens of the context."""
    inside = np.array([one == 1 for one in row.sequences])
    # The model's own mark for no answer keeps its share of the probability.
    inside[0] = True
    first = softmax(np.where(inside, starts, -1e9))
    last = softmax(np.where(inside, ends, -1e9))
    first[0] = last[0] = 0.0
    # A window without a word of the context has no span: score 0.
    pairs = np.triu(np.outer(first, last))
    pairs -= np.triu(pairs, ANSWER_TOKENS_MAX)
    start, end = np.unravel_index(int(pairs.argmax()), pairs.shape)
    score = float(pairs[start, end])
    if score <= 0:
        return Span(0.0, 0, 0)
    return Span(score, row.offsets[int(start)][0], row.offsets[int(end)][1])
