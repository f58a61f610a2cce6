"""The parser of answers: the same whatever the cuts, linear whatever the text."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engines.answer_parser import AnswerParser

EMPTY = '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
ARGUMENTS = '{"a": "}\\"{</tool_call>", "é": [1, {}]}'
CALL = f'<tool_call>\n{{"name": "f", "arguments": {ARGUMENTS}}}\n</tool_call>'

PIECES = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "\n",
    '{"name": "f", "arguments": ',
    '{"a": 1}',
    "}",
    '"',
    "\\",
    "<",
    " words ",
    "é😀",
]


def parsed(
    text: str, cuts: list[int], *, thinks: bool = True
) -> tuple[str, str, list[tuple[str, str]]]:
    """(content, thinking, calls) of a text that comes in pieces."""
    parser = AnswerParser(thinks=thinks, tools=True)
    edges = [0, *sorted(cuts), len(text)]
    found = [parser.feed(text[a:b]) for a, b in itertools.pairwise(edges)]
    found.append(parser.flush())
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    ids: dict[int, set[str]] = {}
    for delta in (delta for one in found for delta in one.calls):
        names[delta.index] = names.get(delta.index, "") + delta.name
        arguments[delta.index] = arguments.get(delta.index, "") + delta.arguments
        ids.setdefault(delta.index, set()).add(delta.id)
    assert all(len(one) == 1 for one in ids.values())
    assert list(names) == list(range(len(names)))
    calls = [(names[index], arguments[index]) for index in names]
    return "".join(o.text for o in found), "".join(o.reasoning for o in found), calls


@given(st.lists(st.sampled_from(PIECES), max_size=25), st.data())
def test_however_a_text_is_cut_it_means_the_same(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=20))
    assert parsed(text, cuts) == parsed(text, [])


@given(st.lists(st.integers(0, 200), max_size=30))
def test_calls_come_whole_and_leave_no_markup(cuts: list[int]) -> None:
    text = f"<think>\nhm\n</think>\n\nHi\n{CALL}\n{EMPTY}"
    cuts = [min(cut, len(text)) for cut in cuts]
    assert parsed(text, cuts) == ("Hi", "hm\n", [("f", ARGUMENTS), ("g", "{}")])


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call> not {"name": 3}',
        '<tool_call>\n{"name": "f", "argum',
        '<tool_call>{"name": "a b", "arguments": {}}</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": "text"}\n</tool_call>',
        "a < b and </think>",
        "<thin",
    ],
)
def test_what_only_looks_like_markup_is_content(text: str) -> None:
    assert parsed(text, []) == (text, "", [])


def test_a_call_that_is_cut_off_shows_what_there_was() -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {"a": "b'
    assert parsed(text, []) == ("", "", [("f", '{"a": "b')])


def test_a_thought_that_the_prompt_began_ends_at_its_tag() -> None:
    parser = AnswerParser(thinks=True, in_thought=True, tools=False)
    assert parser.feed("so it is</think>\n\nYes").reasoning == "so it is"
    assert parser.state == "content"


def test_without_tools_calls_are_text() -> None:
    parser = AnswerParser(thinks=False, tools=False)
    assert parser.feed(CALL).text == CALL


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 90_000,
        '<tool_call>\n{"name": "' * 45_000,
        '<tool_call>\n{"name": "f", "arguments": ' + '{"a":' * 200_000,
        '<tool_call>\n{"name": "f", "arguments": {"a": "' + "\\" * 1_000_000,
        '{"' * 500_000,
        "\n" * 1_000_000,
        "<tool_call>" + " " * 1_000_000,
        "<think>" * 140_000,
    ],
)
def test_a_megabyte_of_almost_markup_takes_linear_time(text: str) -> None:
    def seconds(size: int) -> float:
        parser = AnswerParser(thinks=True, tools=True)
        began = time.process_time()
        for at in range(0, size, 64):
            parser.feed(text[at : min(at + 64, size)])
        parser.flush()
        return time.process_time() - began

    # Ten times the text in a quadratic parser takes a hundred times as long.
    assert seconds(len(text)) < 40 * max(seconds(len(text) // 10), 0.01)
