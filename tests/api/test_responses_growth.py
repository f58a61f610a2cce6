"""Output items of the Responses API, from events that only some engines make."""

from __future__ import annotations

import msgspec
import pytest

from inferd.api.openai.responses import ResponseAnswer
from inferd.api.openai.responses_growth import Growth
from inferd.api.openai.responses_in import ResponseIn
from inferd.api.openai.responses_out import CallItem, MessageItem, OutputItem, response_started
from inferd.clock import SystemClock
from inferd.errors import InferdError, TooManyRequests, Unavailable, UpstreamFailed
from inferd.tasks.base import Usage
from inferd.tasks.text_generation import CallDelta, Text, Token
from tests.api.responses_client import read_events


def said(
    text: str = "", *calls: CallDelta, reasoning: str = "", tokens: tuple[str, ...] = ()
) -> Text:
    made = tuple(Token(index, token, -1.0) for index, token in enumerate(tokens))
    return Text(0, text, made, Usage(), reasoning, calls)


def grown(*events: Text, logprobs: bool = False) -> list[OutputItem]:
    growth = Growth("R", logprobs=logprobs)
    for event in events:
        list(growth.add(event))
    list(growth.end("completed"))
    return growth.items


def shape(*events: Text) -> list[tuple[str, str]]:
    shown: list[tuple[str, str]] = []
    for item in grown(*events):
        if isinstance(item, CallItem):
            shown.append((item.name, item.arguments))
        else:
            shown.append((type(item).__name__, "".join(part.text for part in item.content)))
    return shown


F = (CallDelta(0, "call_f", "f", ""), CallDelta(0, "call_f", "", "{}"))
G = (CallDelta(1, "call_g", "g", ""), CallDelta(1, "call_g", "", '{"a":1}'))


def test_white_space_around_calls_makes_no_message() -> None:
    assert shape(said("\n"), said("", *F), said("\n\n"), said("", *G), said("\n")) == [
        ("f", "{}"),
        ("g", '{"a":1}'),
    ]


def test_white_space_before_words_stays_with_them() -> None:
    assert shape(said(" "), said("\n"), said("a")) == [("MessageItem", " \na")]
    assert shape(said(" ")) == [("MessageItem", " ")]


def test_an_answer_without_anything_is_an_empty_message() -> None:
    assert shape() == [("MessageItem", "")]
    assert shape(said(reasoning="hm")) == [("ReasoningItem", "hm"), ("MessageItem", "")]


def test_text_after_a_call_is_a_message_of_its_own() -> None:
    assert shape(said("a", F[0]), said("b", F[1], *G)) == [
        ("MessageItem", "a"),
        ("f", "{}"),
        ("MessageItem", "b"),
        ("g", '{"a":1}'),
    ]


def test_calls_whose_pieces_come_mixed_are_refused_not_garbled() -> None:
    with pytest.raises(UpstreamFailed):
        grown(said("", F[0], G[0], F[1]))


class TestLogprobs:
    def tokens(self, *events: Text) -> list[str]:
        (message,) = [i for i in grown(*events, logprobs=True) if isinstance(i, MessageItem)]
        return [found.token for found in message.content[0].logprobs]

    def test_tokens_held_back_for_a_stop_string_come_with_their_text(self) -> None:
        events = (said("a", tokens=("a", "b")), said("", tokens=("c",)), said("bcd", tokens=("d",)))
        assert self.tokens(*events) == ["a", "b", "c", "d"]

    def test_a_stop_string_has_none(self) -> None:
        assert self.tokens(said("a", tokens=("a",)), said("", tokens=("STOP",))) == ["a"]

    def test_thoughts_markup_and_calls_have_none(self) -> None:
        events = (
            said("", reasoning="hi", tokens=("<think>", "hi")),
            said("", tokens=("</think>",)),
            said("hi", tokens=("hi",)),
            said("", *F, tokens=("<tool_call>",)),
        )
        assert self.tokens(*events) == ["hi"]

    def test_a_token_that_is_text_in_part_counts(self) -> None:
        assert self.tokens(said("", tokens=("</think>",)), said("x", tokens=("\nx",))) == ["\nx"]

    def test_tokens_whose_text_is_not_found_are_not_lost(self) -> None:
        assert self.tokens(said("é", tokens=("", "\ufffd"))) == ["", "\ufffd"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TooManyRequests("Busy."), "rate_limit_exceeded"),
        (Unavailable("Not now."), "server_error"),
    ],
)
def test_a_stream_that_fails_before_any_output_still_opens(error: InferdError, code: str) -> None:
    wire = msgspec.convert({"model": "a/b", "input": "x"}, ResponseIn)
    started = response_started(wire, request_id="R", created_at=1, tier="default")
    answer = ResponseAnswer(started, Growth("R", logprobs=False), SystemClock())
    created, _, told, failed = read_events(answer.failed(error))
    assert created["response"]["status"] == "in_progress"
    assert told["message"] == error.message
    assert failed["response"]["error"] == {"code": code, "message": error.message}
