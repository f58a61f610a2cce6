"""OpenAI's Python client: tools, typed answers, logprobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from tests.clients.support import QUESTION, TOOL, assert_city, openai_base, package
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

pytestmark = [pytest.mark.clients, pytest.mark.engine]

FIELDS: dict[str, Any] = {
    "model": SMOLLM2,
    "messages": QUESTION,
    "temperature": 0,
    "max_tokens": 60,
    "tools": [TOOL],
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
OTHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture
def api(server: InferdProcess) -> Iterator[Any]:
    """Any: its types do not know the fields that are looked at here."""
    openai = package("openai")
    with openai.OpenAI(base_url=openai_base(server), api_key=TOKEN, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_call_that_must_be_made_is_made(api: Any, choice: Any) -> None:
    answer = api.chat.completions.create(**FIELDS, tool_choice=choice)
    (chosen,) = answer.choices
    (call,) = chosen.message.tool_calls
    assert call.id
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert_city(call.function.arguments)
    assert not chosen.message.content
    # OpenAI says "stop" after a call that was named, and "tool_calls" after one that was not.
    assert chosen.finish_reason in ("tool_calls", "stop")
    assert answer.usage.completion_tokens > 0


def test_a_named_choice_picks_among_tools(api: Any) -> None:
    fields = FIELDS | {"tools": [OTHER, TOOL]}
    answer = api.chat.completions.create(**fields, tool_choice=NAMED)
    assert {c.function.name for c in answer.choices[0].message.tool_calls} == {"get_weather"}


def test_a_free_choice_is_words_or_calls(api: Any) -> None:
    chosen = api.chat.completions.create(**FIELDS, tool_choice="auto").choices[0]
    if chosen.message.tool_calls:
        assert chosen.finish_reason == "tool_calls"
        for call in chosen.message.tool_calls:
            json.loads(call.function.arguments)
    else:
        assert chosen.message.content
        assert chosen.finish_reason in ("stop", "length")


def test_no_call_is_made_where_none_is_allowed(api: Any) -> None:
    chosen = api.chat.completions.create(**FIELDS, tool_choice="none").choices[0]
    assert not chosen.message.tool_calls
    assert chosen.message.content


def test_a_streamed_call_is_pieces_of_the_plain_one(api: Any) -> None:
    plain = api.chat.completions.create(**FIELDS, tool_choice="required").choices[0]
    pieces: list[Any] = []
    reasons: list[str] = []
    for chunk in api.chat.completions.create(**FIELDS, tool_choice="required", stream=True):
        for choice in chunk.choices:
            pieces += choice.delta.tool_calls or []
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert [piece.id for piece in pieces if piece.id]
    assert [piece.function.name for piece in pieces if piece.function.name] == ["get_weather"]
    assert {piece.index for piece in pieces} == {0}
    joined = "".join(piece.function.arguments or "" for piece in pieces)
    assert joined == plain.message.tool_calls[0].function.arguments
    assert reasons == [plain.finish_reason]


def test_the_streams_helper_puts_a_call_together(api: Any) -> None:
    with api.chat.completions.stream(**FIELDS, tool_choice="required") as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert_city(final.choices[0].message.tool_calls[0].function.arguments)


def test_the_result_of_a_call_is_taken_back(api: Any) -> None:
    called = api.chat.completions.create(**FIELDS, tool_choice="required").choices[0].message
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "Sunny, 21 °C"}
    messages = [*QUESTION, called.model_dump(exclude_none=True), result]
    answer = api.chat.completions.create(**(FIELDS | {"messages": messages}), tool_choice="none")
    assert answer.choices[0].message.content


def test_parse_gives_an_object_of_the_class(api: Any) -> None:
    pydantic = package("pydantic")
    field = pydantic.Field(max_length=12)
    city = pydantic.create_model("City", name=(str, field), size=(Literal["big", "small"], ...))
    fields = {key: value for key, value in FIELDS.items() if key != "tools"}
    answer = api.chat.completions.parse(**fields, response_format=city)
    assert isinstance(answer.choices[0].message.parsed, city)
    assert answer.choices[0].message.parsed.size in ("big", "small")


def test_parse_reads_the_arguments_of_a_strict_tool(api: Any) -> None:
    openai, pydantic = package("openai"), package("pydantic")
    ask = pydantic.create_model("Ask", city=(str, pydantic.Field(max_length=12)))
    fields = FIELDS | {"tools": [openai.pydantic_function_tool(ask)]}
    answer = api.chat.completions.parse(**fields, tool_choice="required")
    call = answer.choices[0].message.tool_calls[0]
    assert isinstance(call.function.parsed_arguments, ask)


def test_json_mode_gives_an_object(api: Any) -> None:
    fields = FIELDS | {"tools": None, "response_format": {"type": "json_object"}}
    fields["messages"] = [{"role": "user", "content": "Answer in JSON: the capital of France."}]
    chosen = api.chat.completions.create(**(fields | {"max_tokens": 200})).choices[0]
    assert chosen.message.content.startswith("{")
    if chosen.finish_reason == "stop":
        assert isinstance(json.loads(chosen.message.content), dict)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_logprobs_come_with_each_token(api: Any, streamed: bool) -> None:
    fields = FIELDS | {"tools": None, "max_tokens": 5, "logprobs": True, "top_logprobs": 2}
    answer = api.chat.completions.create(**fields, stream=streamed)
    choices = [c.choices[0] for c in answer if c.choices] if streamed else [answer.choices[0]]
    listed: list[Any] = []
    for choice in choices:
        listed += (choice.logprobs and choice.logprobs.content) or []
    assert len(listed) == 5
    for entry in listed:
        assert entry.logprob <= 0
        assert isinstance(entry.token, str)
        assert len(entry.top_logprobs) == 2
