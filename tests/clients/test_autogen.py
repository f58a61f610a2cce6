"""autogen: its OpenAI client with a base URL, and an agent over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
import pytest_asyncio

from tests.clients.support import openai_base, package
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

# Its own dependencies warn about each other.
pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
]
CAN = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "structured_output": True,
    "family": "unknown",
}


@pytest_asyncio.fixture(loop_scope="module")
async def api(server: InferdProcess) -> AsyncIterator[Any]:
    client = package("autogen_ext.models.openai").OpenAIChatCompletionClient(
        model=SMOLLM2,
        base_url=openai_base(server),
        api_key=TOKEN,
        model_info=CAN,
        max_retries=0,
        temperature=0,
        max_tokens=40,
    )
    yield client
    await client.close()


def say(text: str) -> list[Any]:
    return [package("autogen_core.models").UserMessage(content=text, source="user")]


def weather_tool() -> Any:
    def get_weather(city: Literal["Paris", "Rome"]) -> str:
        return f"Sunny in {city}"

    return package("autogen_core.tools").FunctionTool(get_weather, description="The weather.")


async def test_plain_and_streamed_answers_are_the_same(api: Any) -> None:
    plain = await api.create(say("What is the capital of France?"))
    *pieces, final = [p async for p in api.create_stream(say("What is the capital of France?"))]
    assert plain.finish_reason in ("stop", "length")
    assert "".join(pieces) == plain.content == final.content != ""
    assert plain.usage.completion_tokens > 0


async def test_the_stream_is_counted_when_asked(api: Any) -> None:
    stream = api.create_stream(say("Hello"), include_usage=True)
    final = [piece async for piece in stream][-1]
    assert final.usage.prompt_tokens > 0
    assert final.usage.completion_tokens > 0


async def test_a_call_that_must_be_made_is_made(api: Any) -> None:
    question = say("What is the weather in Paris?")
    tool = weather_tool()
    plain = await api.create(question, tools=[tool], tool_choice="required")
    stream = api.create_stream(question, tools=[tool], tool_choice=tool)
    streamed = [piece async for piece in stream][-1]
    for answer in (plain, streamed):
        (call,) = answer.content
        assert call.id
        assert call.name == "get_weather"
        assert call.arguments in ('{"city": "Paris"}', '{"city": "Rome"}')


async def test_an_answer_is_an_object_of_the_class(api: Any) -> None:
    kind = package("pydantic").create_model("Ask", city=(Literal["Paris", "Rome"], ...))
    answer = await api.create(say("Which city has the Eiffel tower?"), json_output=kind)
    assert kind.model_validate_json(answer.content).city in ("Paris", "Rome")


async def test_an_agent_runs_to_its_end(api: Any) -> None:
    agents = package("autogen_agentchat.agents")
    agent = agents.AssistantAgent("helper", api, tools=[weather_tool()], model_client_stream=True)
    result = await agent.run(task="What is the weather in Paris?")
    assert result.messages[-1].source == "helper"
    assert result.messages[-1].content
