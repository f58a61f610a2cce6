"""The real model behind both dialects, through official clients."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import openai
import pytest

from inferd.money import usd
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: dict[str, Any] = {"model": SMOLLM2, "messages": MESSAGES, "temperature": 0, "seed": 7}


def official(server: InferdProcess, **options: Any) -> Any:
    """OpenAI's client; Any, since the tests look at fields that its types do not know."""
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1/openai", api_key=TOKEN, **options)


async def test_openais_client_gets_a_real_answer_and_its_cost(smollm2: InferdProcess) -> None:
    async with official(smollm2) as client:
        answer = await client.chat.completions.create(**GREEDY, max_tokens=24)
    text = answer.choices[0].message.content
    assert text is not None
    assert "Paris" in text
    assert answer.usage is not None
    (entry,) = [e for e in smollm2.entries() if answer.id.endswith(e.request_id)]
    assert answer.usage.prompt_tokens == entry.input_tokens > 30
    assert answer.usage.completion_tokens == entry.output_tokens <= 24
    assert answer.usage.model_extra is not None
    assert answer.usage.model_extra["estimated_cost"] == usd(entry.cost_nanos) > 0


async def test_the_streamed_answer_is_the_plain_one(smollm2: InferdProcess) -> None:
    async with official(smollm2) as client:
        plain = await client.chat.completions.create(**GREEDY, max_tokens=16)
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                **GREEDY, max_tokens=16, stream=True
            )
        ]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage is not None
    assert plain.usage is not None
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens


async def test_a_seed_repeats_an_answer_and_another_one_does_not(smollm2: InferdProcess) -> None:
    sampled = GREEDY | {"temperature": 1.0, "max_tokens": 24}
    async with official(smollm2) as client:
        texts = [
            (await client.chat.completions.create(**(sampled | {"seed": seed}))).choices[0]
            for seed in (1, 1, 2)
        ]
    first, again, other = (choice.message.content for choice in texts)
    assert first == again != other


async def test_n_gives_different_answers_and_bills_the_prompt_once(smollm2: InferdProcess) -> None:
    async with official(smollm2) as client:
        answer = await client.chat.completions.create(
            model=SMOLLM2, messages=MESSAGES, n=2, seed=3, temperature=1, max_tokens=12
        )
        one = await client.chat.completions.create(**GREEDY, max_tokens=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    assert answer.usage is not None
    assert one.usage is not None
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens


async def test_a_stop_string_ends_the_answer_before_it(smollm2: InferdProcess) -> None:
    async with official(smollm2) as client:
        whole = await client.chat.completions.create(**GREEDY, max_tokens=16)
        cut = await client.chat.completions.create(**GREEDY, max_tokens=16, stop=["capital of"])
    assert whole.choices[0].message.content is not None
    before = whole.choices[0].message.content.partition("capital of")[0]
    assert cut.choices[0].message.content == before
    assert cut.choices[0].finish_reason == "stop"


async def test_the_same_account_reuses_its_prefix_and_pays_less(smollm2: InferdProcess) -> None:
    messages = [{"role": "user", "content": "Count the words in this sentence. " * 6}]
    body = {"model": SMOLLM2, "messages": messages, "max_tokens": 1}
    async with smollm2.client() as client:
        usages = [
            (await client.post("/v1/chat/completions", json=body)).json()["usage"] for _ in range(2)
        ]
        made = (await client.post("/v1/api-tokens", json={"name": "same account"})).json()
        assert made["token"]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert cached[1] > cached[0]
    assert usages[1]["estimated_cost"] < usages[0]["estimated_cost"]


async def test_too_long_is_refused_with_both_numbers(smollm2: InferdProcess) -> None:
    async with official(smollm2, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**GREEDY, max_tokens=8192)
        with pytest.raises(openai.BadRequestError) as long_prompt:
            await client.completions.create(model=SMOLLM2, prompt="word " * 9000, max_tokens=1)
    assert caught.value.code == long_prompt.value.code == "context_length_exceeded"
    assert "8192" in str(caught.value)


async def test_the_native_dialect_and_every_auth_header(smollm2: InferdProcess) -> None:
    body = {"input": "The capital of France is", "max_new_tokens": 4, "temperature": 0}
    headers = (
        {"authorization": f"bearer {TOKEN}"},
        {"x-api-key": TOKEN},
        {"xi-api-key": TOKEN},
    )
    async with httpx.AsyncClient(base_url=smollm2.url, timeout=60) as client:
        for header in headers:
            answer = await client.post(f"/v1/inference/{SMOLLM2}", json=body, headers=header)
            told = answer.json()
            assert answer.status_code == 200
            assert told["num_tokens"] == 4
            assert told["inference_status"]["tokens_input"] == told["num_input_tokens"] == 5
            assert told["inference_status"]["cost"] > 0


async def test_eight_chats_run_side_by_side(smollm2: InferdProcess) -> None:
    async with official(smollm2) as client, smollm2.client() as http:
        calls = [
            asyncio.ensure_future(
                client.chat.completions.create(
                    model=SMOLLM2,
                    messages=[{"role": "user", "content": f"Tell me about the number {n}."}],
                    max_tokens=40,
                    seed=n,
                )
            )
            for n in range(8)
        ]
        most = 0
        while not all(call.done() for call in calls):
            status = (await http.get("/v1/status")).json()
            most = max(most, *(m["in_flight"] for m in status["models"]))
        answers = [call.result() for call in calls]
    assert most == 8
    assert all(answer.choices[0].message.content for answer in answers)


# Its own dependencies warn about each other.
@pytest.mark.filterwarnings("ignore")
async def test_litellms_deepinfra_provider(
    smollm2: InferdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm: Any = pytest.importorskip("litellm")
    answer = await litellm.acompletion(
        model=f"deepinfra/{SMOLLM2}",
        api_base=f"{smollm2.url}/v1/openai",
        api_key=TOKEN,
        messages=MESSAGES,
        max_tokens=8,
        temperature=0,
    )
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 8


async def test_the_cli_lists_runs_and_verifies(smollm2: InferdProcess) -> None:
    code, listed = await smollm2.cli("models", "list")
    assert (code, "ready" in listed) == (0, True)
    code, said = await smollm2.cli(
        "run", SMOLLM2, "What is the capital of France?", "--max-tokens", "12", "--temperature", "0"
    )
    assert (code, "Paris" in said) == (0, True)
    code, report = await smollm2.cli("usage", "--json")
    assert msgspec.json.decode(report)["total_cost_nanos"] == sum(
        entry.cost_nanos for entry in smollm2.entries()
    )
    code, verified = await smollm2.cli("usage", "verify")
    assert (code, "all right" in verified) == (0, True)
    assert (await smollm2.cli("doctor"))[0] == 0
