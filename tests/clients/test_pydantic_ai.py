"""pydantic-ai: agents over chat completions and over responses."""

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
SETTINGS = {"temperature": 0, "max_tokens": 60}


@pytest_asyncio.fixture(loop_scope="module", params=["OpenAIChatModel", "OpenAIResponsesModel"])
async def model(server: InferdProcess, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    models = package("pydantic_ai.models.openai")
    providers = package("pydantic_ai.providers.openai")
    openai = package("openai")
    # The provider would make such a client by itself, and never close it.
    async with openai.AsyncOpenAI(base_url=openai_base(server), api_key=TOKEN) as client:
        provider = providers.OpenAIProvider(openai_client=client)
        yield getattr(models, request.param)(SMOLLM2, provider=provider)


def agent(model: Any, **options: Any) -> Any:
    return package("pydantic_ai").Agent(model, model_settings=SETTINGS, **options)


def ask() -> Any:
    return package("pydantic").create_model("Ask", city=(Literal["Paris", "Rome"], ...))


async def test_plain_and_streamed_answers_are_the_same(model: Any) -> None:
    plain = await agent(model).run("What is the capital of France?")
    async with agent(model).run_stream("What is the capital of France?") as run:
        streamed = [text async for text in run.stream_text()]
    assert plain.output == streamed[-1] != ""
    assert plain.usage.output_tokens > 0


@pytest.mark.parametrize("kind", ["ToolOutput", "NativeOutput"])
async def test_an_answer_is_an_object_of_the_class(model: Any, kind: str) -> None:
    wrapped = getattr(package("pydantic_ai"), kind)(ask())
    result = await agent(model, output_type=wrapped).run("Which city has the Eiffel tower?")
    assert result.output.city in ("Paris", "Rome")


async def test_a_streamed_answer_is_an_object_of_the_class(model: Any) -> None:
    async with agent(model, output_type=ask()).run_stream("Which city has the tower?") as run:
        assert (await run.get_output()).city in ("Paris", "Rome")


async def test_tools_are_offered_and_their_results_taken_back(model: Any) -> None:
    helper = agent(model)

    @helper.tool_plain
    def get_weather(city: Literal["Paris", "Rome"]) -> str:
        """The weather in a city."""
        return f"Sunny in {city}"

    assert get_weather
    limits = package("pydantic_ai").UsageLimits(request_limit=3)
    first = await helper.run("What is the weather in Paris?", usage_limits=limits)
    more = await helper.run("And in Rome?", message_history=first.all_messages())
    assert more.output


async def test_a_refusal_is_its_own_error(server: InferdProcess, model: Any) -> None:
    pydantic_ai = package("pydantic_ai")
    with pytest.raises(pydantic_ai.ModelHTTPError) as caught:
        await agent(model).run("Hello", model_settings={"temperature": 9})
    assert caught.value.status_code == 400
