"""What reads a model's answer, and what reads a form, takes time in proportion to its text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inferd.engines.answer_parser import AnswerParser
from inferd.engines.stop_strings import StopStrings
from tests.awake import Stopwatch

SIZE = 1_000_000
SECONDS_MAX = 1.0
"""A megabyte takes some 20 ms in one piece; the rest is for machines that do other things too."""

TEXTS = {
    "open calls": "<tool_call>",
    "almost calls": "<tool_call>\n{",
    "calls without arguments": '<tool_call>\n{"name": "f", "arguments": ',
    "calls that never close": '<tool_call>\n{"name": "f", "arguments": {"a": "',
    "whole calls": '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
    "almost a tag": "<tool_cal",
    "less": "<",
    "objects": '{"',
    "open objects": "{",
    "lists": "[",
    "quotes": '"',
    "backslashes": "\\",
    "line breaks": "\n",
    "spaces": " ",
    "thinking": "<think>",
    "no more thinking": "</think>",
    "almost no more thinking": "</thin",
    "closing calls": "</tool_call>",
    "names without an end": '<tool_call>{"name": "aaaaaaaaaaaaaaaa',
    "spaces in a call": "<tool_call>" + " " * 20,
}


def pieces(text: str, size: int) -> Iterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("piece", [5, SIZE])
def test_a_parser_of_answers_is_linear_and_loses_nothing(name: str, piece: int) -> None:
    size = SIZE if piece == SIZE else SIZE // 10
    text = (TEXTS[name] * (size // len(TEXTS[name]) + 1))[:size]
    parser = AnswerParser(thinks=True, tools=True)
    clock = Stopwatch()
    told = [parser.feed(part) for part in pieces(text, piece)]
    told.append(parser.flush())
    assert clock.seconds() < SECONDS_MAX
    if not any(part.calls or part.reasoning for part in told) and "<think>" not in text:
        assert "".join(part.text for part in told) == text


@pytest.mark.parametrize("stop", [("a" * 1023 + "b",), tuple("a" * n + "b" for n in range(1, 17))])
@pytest.mark.parametrize("piece", [5, SIZE])
def test_stop_strings_that_almost_match_are_linear(stop: tuple[str, ...], piece: int) -> None:
    text = "a" * (SIZE if piece == SIZE else SIZE // 10)
    stops = StopStrings(stop)
    clock = Stopwatch()
    told = "".join(stops.feed(part) for part in pieces(text, piece)) + stops.flush()
    assert clock.seconds() < SECONDS_MAX
    assert told == text
