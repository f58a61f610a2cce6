"""litellm's deepinfra provider."""

from __future__ import annotations

from typing import Any

import pytest

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
    assert len(after) - before == 3
    assert {entry.status for entry in after} == {"failed"}
