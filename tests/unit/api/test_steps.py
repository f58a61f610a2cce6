"""Searches in steps find what a search in one go finds, and sleep between two steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.api import steps
from inferd.api.steps import count, find

SHORT = st.text("ab\\/", max_size=60).map(str.encode)
WORDS = st.sampled_from([b"a", b"ab", b"aab", b"\\/", b"abab/"])


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(steps, "STEP_BYTES", 4)
    monkeypatch.setattr(steps.time, "sleep", taken.append)
    return taken


@given(SHORT, WORDS, st.integers(0, 60))
def test_a_word_is_found_wherever_it_begins(body: bytes, word: bytes, start: int) -> None:
    assert find(body, word, start) == body.find(word, start)
    assert find(bytearray(body), word, start) == body.find(word, start)


@given(SHORT, st.sampled_from([b"a", b"\\/", b"\\"]), st.integers(0, 60), st.integers(0, 60))
def test_words_are_counted_once_each(body: bytes, word: bytes, start: int, end: int) -> None:
    assert count(body, word, start, end) == body.count(word, start, end)


def test_one_step_sleeps_not_and_several_between_them(pauses: list[float]) -> None:
    assert find(b"aaaa", b"b") == -1
    assert pauses == []
    assert count(bytearray(12), b"\0", 0, 12) == 12
    assert pauses == [steps.PAUSE_SECONDS] * 2
