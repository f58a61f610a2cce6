"""llama-index's class for DeepInfra: it takes the host alone and adds its own paths."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.support import package
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

# Its own dependencies warn about each other.
pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore"),
]
PROMPT = "The capital of France is"


def llm(server: InferdProcess, model: str = SMOLLM2, **options: Any) -> Any:
    kind = package("llama_index.llms.deepinfra").DeepInfraLLM
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "max_retries": 1, **options}
    return kind(model=model, api_base=server.url, api_key=TOKEN, **fields)


def say(text: str) -> list[Any]:
    return [package("llama_index.core.llms").ChatMessage(role="user", content=text)]


def test_completed_plain_and_streamed_texts_are_the_same(server: InferdProcess) -> None:
    model = llm(server)
    plain = model.complete(PROMPT).text
    streamed = [chunk.text for chunk in model.stream_complete(PROMPT)][-1]
    assert plain == streamed != ""


def test_chatted_plain_and_streamed_answers_are_the_same(server: InferdProcess) -> None:
    model = llm(server)
    plain = model.chat(say("What is the capital of France?")).message.content
    streamed = [c.message.content for c in model.stream_chat(say("What is the capital of France?"))]
    assert plain == streamed[-1] != ""


async def test_the_same_without_blocking(server: InferdProcess) -> None:
    model = llm(server, "t/echo")
    assert (await model.acomplete("one two")).text == "one two"
    assert (await model.achat(say("one two"))).message.content == "one two"
    heard = [chunk.delta async for chunk in await model.astream_chat(say("one two"))]
    assert "".join(heard) == "one two"


def test_tools_are_known_from_the_models_tags(server: InferdProcess) -> None:
    assert llm(server).metadata.is_function_calling_model
    assert not llm(server, "no/such").metadata.is_function_calling_model


def test_tools_are_offered(server: InferdProcess) -> None:
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"Sunny in {city}"

    tool = package("llama_index.core.tools").FunctionTool.from_defaults(get_weather)
    model = llm(server, max_tokens=60)
    answer = model.chat_with_tools([tool], user_msg="What is the weather in Paris?")
    calls = model.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    assert calls or answer.message.content


@pytest.mark.parametrize("model", ["no/such", "t/broken"])
def test_refusals_are_errors(server: InferdProcess, model: str) -> None:
    requests = package("requests")
    with pytest.raises(requests.HTTPError):
        llm(server, model).chat(say("Hello"))
