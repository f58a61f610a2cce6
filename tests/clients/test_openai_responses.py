"""OpenAI's Python client: the Responses API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.support import TOOL, WEATHER, assert_city, openai_base, package
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

pytestmark = [pytest.mark.clients, pytest.mark.engine]

FIELDS: dict[str, Any] = {
    "model": SMOLLM2,
    "input": "What is the weather in Paris?",
    "temperature": 0,
    "max_output_tokens": 60,
}
FLAT_TOOL = {"type": "function", **TOOL["function"], "strict": True}


@pytest.fixture
def api(server: InferdProcess) -> Iterator[Any]:
    """Any: its types do not know the fields that are looked at here."""
    openai = package("openai")
    with openai.OpenAI(base_url=openai_base(server), api_key=TOKEN, max_retries=0) as client:
        yield client


def test_plain_and_streamed_answers_are_the_same(api: Any) -> None:
    fields = FIELDS | {"max_output_tokens": 16}
    plain = api.responses.create(**fields)
    events = list(api.responses.create(**fields, stream=True))
    assert plain.object == "response"
    assert plain.output_text
    assert plain.usage.output_tokens == 16
    assert (plain.status, plain.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert events[0].type == "response.created"
    assert events[-1].type == "response.incomplete"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == plain.output_text == events[-1].response.output_text
    assert events[-1].response.usage.output_tokens == 16


def test_an_answer_that_ends_by_itself_is_completed(api: Any) -> None:
    fields = FIELDS | {"model": "t/echo", "input": "one two", "max_output_tokens": None}
    assert api.responses.create(**fields).status == "completed"
    last = list(api.responses.create(**fields, stream=True))[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "one two"


def test_the_streams_helper_gives_the_final_response(api: Any) -> None:
    with api.responses.stream(**(FIELDS | {"model": "t/echo"})) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.output_text.delta" in kinds
    assert final.output_text == FIELDS["input"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
def test_a_call_that_must_be_made_is_made(api: Any, choice: Any) -> None:
    answer = api.responses.create(**FIELDS, tools=[FLAT_TOOL], tool_choice=choice)
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert call.call_id
    assert call.name == "get_weather"
    assert_city(call.arguments)


def test_a_streamed_call_is_pieces_of_its_arguments(api: Any) -> None:
    stream = api.responses.create(**FIELDS, tools=[FLAT_TOOL], tool_choice="required", stream=True)
    events = list(stream)
    kind = "response.function_call_arguments"
    joined = "".join(event.delta for event in events if event.type == f"{kind}.delta")
    (done,) = [event for event in events if event.type == f"{kind}.done"]
    assert done.arguments == joined
    assert_city(joined)


def test_the_result_of_a_call_is_taken_back(api: Any) -> None:
    first = api.responses.create(**FIELDS, tools=[FLAT_TOOL], tool_choice="required")
    call = next(item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}
    question = {"role": "user", "content": FIELDS["input"]}
    history = [question, call.model_dump(exclude_none=True), result]
    answer = api.responses.create(**(FIELDS | {"input": history}), tools=[FLAT_TOOL])
    assert answer.output


def test_a_schema_binds_the_text(api: Any) -> None:
    shape = {"type": "json_schema", "name": "ask", "schema": WEATHER, "strict": True}
    assert_city(api.responses.create(**FIELDS, text={"format": shape}).output_text)


def test_parse_gives_an_object_of_the_class(api: Any) -> None:
    pydantic = package("pydantic")
    ask = pydantic.create_model("Ask", city=(str, pydantic.Field(max_length=12)))
    assert isinstance(api.responses.parse(**FIELDS, text_format=ask).output_parsed, ask)


def test_refusals_are_the_clients_own_errors(api: Any) -> None:
    openai = package("openai")
    with pytest.raises(openai.NotFoundError):
        api.responses.create(**(FIELDS | {"model": "no/such"}))
    with pytest.raises(openai.BadRequestError):
        api.responses.create(**(FIELDS | {"temperature": 9}))
    with pytest.raises(openai.NotFoundError):
        api.responses.retrieve("resp_none")
