"""Names and answers from the numbers of a model, without the library that makes them."""

from __future__ import annotations

import numpy as np
import pytest

from inferd.engines.onnx import Array
from inferd.engines.transformers_answers import ANSWER_TOKENS_MAX, best_span
from inferd.engines.transformers_entities import entities
from inferd.engines.transformers_text import Row, label_scores

TAGS = ["O", "B-PER", "I-PER", "B-LOC"]


def row(text: str, *, sequence: int = 0) -> Row:
    """A token for each half of a word, between two special ones."""
    offsets: list[tuple[int, int]] = [(0, 0)]
    words: list[int | None] = [None]
    begin = 0
    for at, word in enumerate(text.split(" ")):
        middle, end = begin + (len(word) + 1) // 2, begin + len(word)
        for piece in ((begin, middle), (middle, end)):
            if piece[0] < piece[1]:
                offsets.append(piece)
                words.append(at)
        begin = end + 1
    offsets.append((0, 0))
    words.append(None)
    count = len(offsets)
    sequences = [None if word is None else sequence for word in words]
    return Row([9] * count, [0] * count, offsets, words, sequences)


def logits(of: Row, *tags: str, later: str = "O") -> Array:
    """The first token of each word gets its tag, the rest another one."""
    made = np.zeros((len(of.ids), len(TAGS)), np.float32)
    seen: set[int] = set()
    for at, word in enumerate(of.words):
        if word is None:
            continue
        made[at, TAGS.index(later if word in seen else tags[word])] = 8
        seen.add(word)
    return made


class TestEntities:
    @pytest.mark.parametrize(
        ("tags", "found"),
        [
            (["B-PER", "I-PER", "O", "B-LOC"], [("PER", "anna smith"), ("LOC", "berlin")]),
            (["I-PER", "I-PER", "O", "O"], [("PER", "anna smith")]),
            (["B-PER", "B-PER", "O", "O"], [("PER", "anna"), ("PER", "smith")]),
            (["B-PER", "O", "I-PER", "O"], [("PER", "anna"), ("PER", "in")]),
            (["B-LOC", "I-PER", "O", "O"], [("LOC", "anna"), ("PER", "smith")]),
            (["O", "O", "O", "O"], []),
        ],
    )
    def test_words_of_one_kind_are_one_name(
        self, tags: list[str], found: list[tuple[str, str]]
    ) -> None:
        text = "anna smith in berlin"
        told = entities(text, row(text), logits(row(text), *tags), TAGS)
        assert [(one.group, one.word) for one in told] == found
        for one in told:
            assert text[one.start : one.end] == one.word
            assert one.score == pytest.approx(0.999, abs=1e-3)

    def test_the_first_token_of_a_word_decides(self) -> None:
        text = "anna in berlin"
        numbers = logits(row(text), "B-PER", "O", "O", later="B-LOC")
        assert [one.word for one in entities(text, row(text), numbers, TAGS)] == ["anna"]


class TestBestSpan:
    def test_the_likeliest_pair_within_the_context(self) -> None:
        context = row("anna lives in berlin", sequence=1)
        starts, ends = np.zeros(10, np.float32), np.zeros(10, np.float32)
        starts[7], ends[8] = 9, 9
        span = best_span(context, starts, ends)
        assert (span.start, span.end) == (14, 20)
        assert span.score > 0.9

    def test_an_end_before_its_start_is_none(self) -> None:
        context = row("anna lives in berlin", sequence=1)
        starts, ends = np.zeros(10, np.float32), np.zeros(10, np.float32)
        starts[7], ends[2] = 9, 9
        span = best_span(context, starts, ends)
        assert span.start < span.end
        assert span.score < 0.01

    def test_an_answer_is_not_too_long(self) -> None:
        text = " ".join(["ab"] * 60)
        context = row(text, sequence=1)
        starts, ends = np.zeros(122, np.float32), np.zeros(122, np.float32)
        starts[1], ends[120] = 9, 9
        span = best_span(context, starts, ends)
        assert (span.end - span.start) <= 1.5 * ANSWER_TOKENS_MAX

    def test_the_question_is_no_answer(self) -> None:
        asked = row("where is anna", sequence=0)
        far = np.full(len(asked.ids), 5, np.float32)
        assert best_span(asked, far, far).score == 0

    def test_no_answer_keeps_its_share(self) -> None:
        context = row("anna lives in berlin", sequence=1)
        starts = np.zeros(10, np.float32)
        starts[0] = 20
        assert best_span(context, starts, starts).score < 1e-6


class TestLabelScores:
    def test_together_or_each_by_itself(self) -> None:
        numbers = np.array([0.0, 2.0, -2.0], np.float32)
        together = label_scores(["a", "b", "c"], numbers, independent=False)
        assert [one.label for one in together] == ["b", "a", "c"]
        assert sum(one.score for one in together) == pytest.approx(1)
        apart = label_scores(["a", "b", "c"], numbers, independent=True)
        assert [round(one.score, 2) for one in apart] == [0.88, 0.5, 0.12]
