"""Anthropic's way to say an answer, fed with events: streams and bodies hold the same blocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from inferd.api.anthropic.answer import MessageAnswer
from inferd.errors import TooManyRequests
from inferd.tasks.base import Usage
from inferd.tasks.text_generation import CallDelta, Done, FinishReason, Text
from tests.api.anthropic_stream import accumulate, events
from tests.gateway import echo_card

WORK: Any = SimpleNamespace(
    cost_nanos=5000,
    order=SimpleNamespace(tier="default", card=echo_card()),
    paid_tier="default",
)
USED = Usage(input_tokens=10, cached_tokens=4, output_tokens=7, reasoning_tokens=3)


def text(text: str = "", *, reasoning: str = "", calls: tuple[CallDelta, ...] = ()) -> Text:
    return Text(0, text, (), USED, reasoning, calls)


def done(reason: FinishReason = "eos", stopped_at: tuple[str | None, ...] = ()) -> Done:
    return Done((reason,), USED, stopped_at=stopped_at)


def answer() -> MessageAnswer:
    return MessageAnswer(id_="msg_1", model="test/echo")


def streamed(*said: Text, end: Done) -> bytes:
    way = answer()
    return b"".join([*(way.text(event, WORK) for event in said), way.last(end, WORK)])


def plain(*said: Text, end: Done) -> dict[str, Any]:
    way = answer()
    for event in said:
        way.fold(event)
    return msgspec.json.decode(way.body(end, WORK))


def both(*said: Text, end: Done | None = None) -> dict[str, Any]:
    """The message, the same in both ways."""
    end = end or done()
    told = plain(*said, end=end)
    assert accumulate(streamed(*said, end=end)) == told
    return told


class TestBlocks:
    def test_text_after_thoughts_after_nothing(self) -> None:
        told = both(text(), text(reasoning="h"), text(reasoning="m"), text("so"), text(), text("!"))
        assert told["content"] == [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "so!"},
        ]

    def test_one_event_may_hold_all_of_it(self) -> None:
        calls = (CallDelta(0, "call_a", "f", ""), CallDelta(0, "call_a", "", '{"x": 1}'))
        told = both(text("so", reasoning="hm", calls=calls), end=done("tool_calls"))
        assert [block["type"] for block in told["content"]] == ["thinking", "text", "tool_use"]
        assert told["content"][2] == {
            "type": "tool_use",
            "id": "toolu_a",
            "name": "f",
            "input": {"x": 1},
        }
        assert told["stop_reason"] == "tool_use"

    def test_a_call_that_goes_on_ends_before_text_and_the_next_call(self) -> None:
        told = both(
            text(calls=(CallDelta(0, "call_a", "f", ""), CallDelta(0, "call_a", "", '{"x"'))),
            text(
                "and",
                calls=(
                    CallDelta(0, "call_a", "", ": 1}"),
                    CallDelta(1, "call_b", "g", ""),
                    CallDelta(1, "call_b", "", "{}"),
                ),
            ),
        )
        first, said, second = told["content"]
        assert (first["name"], first["input"]) == ("f", {"x": 1})
        assert said["text"] == "and"
        assert (second["id"], second["name"], second["input"]) == ("toolu_b", "g", {})

    def test_an_id_that_was_not_made_here_stays(self) -> None:
        told = both(text(calls=(CallDelta(0, "chatcmpl-tool-1", "f", "{}"),)))
        assert told["content"][0]["id"] == "chatcmpl-tool-1"

    def test_arguments_that_were_cut_off_are_an_empty_object(self) -> None:
        calls = (CallDelta(0, "call_a", "f", '{"city": "Par'),)
        told = plain(text(calls=calls), end=done("length"))
        assert told["content"][0]["input"] == {}
        assert told["stop_reason"] == "max_tokens"

    def test_an_answer_without_any_text_is_still_a_message(self) -> None:
        assert both()["content"] == []
        assert both(text())["content"] == []


class TestEnding:
    def test_the_reason_and_the_string_that_matched(self) -> None:
        told = both(text("a"), end=done("stop_sequence", ("END",)))
        assert (told["stop_reason"], told["stop_sequence"]) == ("stop_sequence", "END")
        told = both(text("a"), end=done("stop_sequence"))
        assert (told["stop_reason"], told["stop_sequence"]) == ("stop_sequence", None)
        told = both(text("a"), end=done("eos", (None,)))
        assert (told["stop_reason"], told["stop_sequence"]) == ("end_turn", None)

    def test_cached_tokens_are_counted_apart(self) -> None:
        assert both(text("a"))["usage"] == {
            "input_tokens": 6,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 3},
            "service_tier": "standard",
            "estimated_cost": 5e-6,
        }

    def test_the_beginning_already_counts_the_input_and_no_cost(self) -> None:
        start, *_ = events(streamed(text("a"), end=done()))
        assert start["message"]["usage"]["input_tokens"] == 6
        assert "estimated_cost" not in start["message"]["usage"]

    def test_a_failure_is_an_event_with_the_envelope(self) -> None:
        (event,) = events(answer().failed(TooManyRequests("Too many.")))
        wanted = {"type": "rate_limit_error", "message": "Too many."}
        assert event == {"type": "error", "error": wanted}


@st.composite
def answers(draw: st.DrawFn) -> list[Text]:
    """Events of an answer: thoughts and text anywhere, calls one after the other, cut anywhere."""
    said: list[Text] = []
    words = st.text('ab \n"\\{é', max_size=3)
    for index in range(draw(st.integers(0, 3))):
        said += [text(draw(words), reasoning=draw(words)) for _ in range(draw(st.integers(0, 2)))]
        arguments = msgspec.json.encode({draw(words): draw(words)}).decode()
        cut = draw(st.integers(0, len(arguments)))
        id_ = f"call_{index}"
        call = [
            CallDelta(index, id_, "f", ""),
            CallDelta(index, id_, "", arguments[:cut]),
            CallDelta(index, id_, "", arguments[cut:]),
        ]
        pieces = draw(st.integers(1, 3))
        said.append(text(draw(words), calls=tuple(call[:pieces])))
        said.append(text(draw(words), calls=tuple(call[pieces:])))
    return [*said, text(draw(words))]


@given(answers())
def test_a_stream_joins_to_the_plain_answer(said: list[Text]) -> None:
    told = both(*said)
    texts = [block["text"] for block in told["content"] if block["type"] == "text"]
    thoughts = [block["thinking"] for block in told["content"] if block["type"] == "thinking"]
    assert "".join(texts) == "".join(event.text for event in said)
    assert "".join(thoughts) == "".join(event.reasoning for event in said)
    assert all(texts)
