"""Anthropic's Python client: messages, streams, tools, counting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.support import WEATHER, package
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

pytestmark = [pytest.mark.clients, pytest.mark.engine]

FIELDS: dict[str, Any] = {
    "model": SMOLLM2,
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "temperature": 0,
    "max_tokens": 12,
}
TOOL = {"name": "get_weather", "description": "The weather.", "input_schema": WEATHER}
CALLING: dict[str, Any] = FIELDS | {"max_tokens": 60, "tools": [TOOL]}
CHOICES = [{"type": "any"}, {"type": "tool", "name": "get_weather"}]


@pytest.fixture
def anthropic() -> Any:
    return package("anthropic")


@pytest.fixture
def api(anthropic: Any, server: InferdProcess) -> Iterator[Any]:
    base = f"{server.url}/anthropic"
    with anthropic.Anthropic(base_url=base, api_key=TOKEN, max_retries=0) as client:
        yield client


def create(api: Any, fields: dict[str, Any]) -> Any:
    """As the client's users call it: temperature is a field of the body."""
    fields = dict(fields)
    return api.messages.create(extra_body={"temperature": fields.pop("temperature")}, **fields)


def test_plain_and_streamed_answers_are_the_same(api: Any) -> None:
    plain = create(api, FIELDS)
    events = list(create(api, FIELDS | {"stream": True}))
    assert plain.type == "message"
    assert plain.role == "assistant"
    assert plain.stop_reason == "max_tokens"
    assert plain.usage.output_tokens == 12
    assert plain.usage.input_tokens > 0
    assert [event.type for event in events][:2] == ["message_start", "content_block_start"]
    assert [event.type for event in events][-2:] == ["message_delta", "message_stop"]
    texts = [e.delta.text for e in events if e.type == "content_block_delta"]
    assert "".join(texts) == plain.content[0].text != ""
    assert events[-2].delta.stop_reason == "max_tokens"
    assert events[-2].usage.output_tokens == 12


def test_the_streams_helper_gives_the_final_message(api: Any) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != "temperature"}
    with api.messages.stream(**(fields | {"model": "t/echo"})) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == fields["messages"][0]["content"]
    assert final.stop_reason == "end_turn"


def test_a_system_prompt_blocks_and_a_stop_sequence(api: Any) -> None:
    blocks = [{"type": "text", "text": "one two three"}]
    answer = create(
        api,
        FIELDS
        | {
            "model": "t/echo",
            "system": [{"type": "text", "text": "Be short."}],
            "messages": [{"role": "user", "content": blocks}],
            "stop_sequences": [" three"],
        },
    )
    assert answer.content[0].text == "one two"
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " three")


@pytest.mark.parametrize("choice", CHOICES, ids=["any", "tool"])
def test_a_call_that_must_be_made_is_made(api: Any, choice: dict[str, str]) -> None:
    answer = create(api, CALLING | {"tool_choice": choice})
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert call.id
    assert call.name == "get_weather"
    assert list(call.input) == ["city"]
    assert answer.stop_reason == "tool_use"


def test_a_streamed_call_is_put_together_by_the_helper(api: Any) -> None:
    fields = {key: value for key, value in CALLING.items() if key != "temperature"}
    with api.messages.stream(**fields, tool_choice={"type": "any"}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    (call,) = [block for block in final.content if block.type == "tool_use"]
    assert "input_json" in kinds
    assert isinstance(call.input["city"], str)
    assert final.stop_reason == "tool_use"


def test_the_result_of_a_call_is_taken_back(api: Any) -> None:
    called = create(api, CALLING | {"tool_choice": {"type": "any"}})
    call = next(block for block in called.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"}
    messages = [
        *FIELDS["messages"],
        {"role": "assistant", "content": [block.to_dict() for block in called.content]},
        {"role": "user", "content": [result]},
    ]
    assert create(api, CALLING | {"messages": messages}).content


def test_counted_tokens_are_those_of_the_answer(api: Any) -> None:
    counted = api.messages.count_tokens(model=SMOLLM2, messages=FIELDS["messages"])
    usage = create(api, FIELDS).usage
    # As Anthropic counts, what was read from the cache is not in input_tokens.
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
    more = api.messages.count_tokens(model=SMOLLM2, messages=FIELDS["messages"], tools=[TOOL])
    assert more.input_tokens > counted.input_tokens


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"model": "no/such"}, "NotFoundError"),
        ({"temperature": 9}, "BadRequestError"),
        ({"model": "t/broken"}, "InternalServerError"),
    ],
)
def test_refusals_are_the_clients_own_errors(
    anthropic: Any, api: Any, change: dict[str, Any], kind: str
) -> None:
    with pytest.raises(getattr(anthropic, kind)) as caught:
        create(api, FIELDS | change)
    assert caught.value.body["type"] == "error"


def test_a_wrong_key_is_an_authentication_error(anthropic: Any, server: InferdProcess) -> None:
    base = f"{server.url}/anthropic"
    with (
        anthropic.Anthropic(base_url=base, api_key="wrong") as api,
        pytest.raises(anthropic.AuthenticationError),
    ):
        create(api, FIELDS)


def test_a_bearer_token_opens_too(anthropic: Any, server: InferdProcess) -> None:
    with anthropic.Anthropic(base_url=f"{server.url}/anthropic", auth_token=TOKEN) as api:
        assert create(api, FIELDS).content[0].text


def test_a_stream_that_breaks_raises_in_the_loop(anthropic: Any, api: Any) -> None:
    heard: list[str] = []

    def listen() -> None:
        for event in create(api, FIELDS | {"model": "t/breaks", "stream": True}):
            heard.extend([event.delta.text] if event.type == "content_block_delta" else [])

    with pytest.raises(anthropic.APIStatusError, match="told to fail"):
        listen()
    assert "".join(heard) == "What is"
