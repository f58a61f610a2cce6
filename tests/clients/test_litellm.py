"""litellm's deepinfra provider."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.support import QUESTION, TOOL, WEATHER, assert_city
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

# Its own dependencies warn about each other.
pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    # Without it the import asks the network for prices.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return pytest.importorskip("litellm")


def fields(server: InferdProcess, **changes: Any) -> dict[str, Any]:
    return {
        "model": f"deepinfra/{SMOLLM2}",
        "api_base": f"{server.url}/v1/openai",
        "api_key": TOKEN,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 12,
        "temperature": 0,
        "num_retries": 0,
        **changes,
    }


async def test_plain_and_streamed_answers_are_the_same(server: InferdProcess, litellm: Any) -> None:
    plain = await litellm.acompletion(**fields(server))
    streamed = [
        chunk.choices[0].delta.content or ""
        async for chunk in await litellm.acompletion(**fields(server, stream=True))
    ]
    assert "Paris" in plain.choices[0].message.content
    assert "".join(streamed) == plain.choices[0].message.content
    assert plain.usage.completion_tokens <= 12
    assert plain.usage.estimated_cost > 0


async def test_the_streams_usage_is_handed_on(server: InferdProcess, litellm: Any) -> None:
    chunks = [
        chunk
        async for chunk in await litellm.acompletion(
            **fields(server, stream=True, stream_options={"include_usage": True})
        )
    ]
    whole = litellm.stream_chunk_builder(chunks)
    entry = server.entries()[-1]
    assert whole.usage.prompt_tokens == entry.input_tokens
    assert whole.usage.completion_tokens == entry.output_tokens


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"model": "deepinfra/no/such"}, "NotFoundError"),
        ({"api_key": "wrong"}, "AuthenticationError"),
        ({"temperature": 9}, "BadRequestError"),
        ({"max_tokens": 8192}, "BadRequestError"),
        ({"model": "deepinfra/t/broken"}, "InternalServerError"),
    ],
)
async def test_refusals_are_litellms_own_errors(
    server: InferdProcess, litellm: Any, changes: dict[str, Any], kind: str
) -> None:
    with pytest.raises(getattr(litellm, kind)):
        await litellm.acompletion(**fields(server, **changes))


async def test_a_failure_is_tried_again_as_often_as_asked(
    server: InferdProcess, litellm: Any
) -> None:
    before = len([entry for entry in server.entries() if entry.model == "t/broken"])
    with pytest.raises(litellm.InternalServerError):
        await litellm.acompletion(**fields(server, model="deepinfra/t/broken", num_retries=2))
    after = [entry for entry in server.entries() if entry.model == "t/broken"]
    # The client in it tries three times. Where tenacity is there, litellm does all of it thrice.
    assert len(after) - before in (3, 9)
    assert {entry.status for entry in after} == {"failed"}


async def test_tools_are_offered(server: InferdProcess, litellm: Any) -> None:
    answer = await litellm.acompletion(
        **fields(server, messages=QUESTION, tools=[TOOL], tool_choice="auto")
    )
    chosen = answer.choices[0]
    assert chosen.message.tool_calls or chosen.message.content


async def test_a_call_that_must_be_made_is_made(server: InferdProcess, litellm: Any) -> None:
    # Its provider deepinfra refuses the choice "required" by itself; its provider openai does not.
    asked = fields(server, model=f"openai/{SMOLLM2}", messages=QUESTION, max_tokens=60)
    asked |= {"tools": [TOOL], "tool_choice": "required"}
    plain = await litellm.acompletion(**asked)
    (call,) = plain.choices[0].message.tool_calls
    assert_city(call.function.arguments)
    chunks = [chunk async for chunk in await litellm.acompletion(**asked, stream=True)]
    whole = litellm.stream_chunk_builder(chunks)
    (joined,) = whole.choices[0].message.tool_calls
    assert joined.function.name == "get_weather"
    assert joined.function.arguments == call.function.arguments
    assert whole.choices[0].finish_reason == "tool_calls"


async def test_a_schema_binds_the_text(server: InferdProcess, litellm: Any) -> None:
    shape = {"name": "ask", "schema": WEATHER, "strict": True}
    answer = await litellm.acompletion(
        **fields(server, response_format={"type": "json_schema", "json_schema": shape})
    )
    assert_city(answer.choices[0].message.content)


async def test_its_responses_go_to_the_responses_api(server: InferdProcess, litellm: Any) -> None:
    answer = await litellm.aresponses(
        model=f"openai/{SMOLLM2}",
        api_base=f"{server.url}/v1/openai",
        api_key=TOKEN,
        input="Hello",
        max_output_tokens=16,
    )
    assert answer.usage.output_tokens <= 16
    assert answer.output[0].content[0].text


async def test_its_messages_go_to_anthropics_dialect(server: InferdProcess, litellm: Any) -> None:
    answer = await litellm.anthropic.messages.acreate(
        model=f"anthropic/{SMOLLM2}",
        api_base=f"{server.url}/anthropic",
        api_key=TOKEN,
        messages=QUESTION,
        max_tokens=12,
    )
    assert answer["content"][0]["text"]
    assert answer["stop_reason"] == "max_tokens"
