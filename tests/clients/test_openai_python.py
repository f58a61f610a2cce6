"""OpenAI's Python client, as its users call it: blocking, streaming, failing, trying again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import openai
import pytest

from tests.e2e.steps import Visitor, body, queued
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
]

T = TypeVar("T")
CHAT: dict[str, Any] = {
    "model": SMOLLM2,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 40,
    "stop": ["."],
}


def client(server: InferdProcess, **options: Any) -> Any:
    """Any: its types do not know the fields that are looked at here."""
    fields: dict[str, Any] = {"api_key": TOKEN, "max_retries": 0, **options}
    return openai.OpenAI(base_url=f"{server.url}/v1/openai", **fields)


async def call(work: Callable[[], T]) -> T:
    """The blocking client, in a thread of its own."""
    return await asyncio.to_thread(work)


async def test_plain_streamed_and_helped_answers_are_the_same(server: InferdProcess) -> None:
    def work() -> list[str]:
        with client(server) as api:
            plain = api.chat.completions.create(**CHAT)
            streamed = [
                chunk.choices[0].delta.content or ""
                for chunk in api.chat.completions.create(**CHAT, stream=True)
            ]
            with api.chat.completions.stream(**CHAT) as helper:
                final = helper.get_final_completion()
        return [
            plain.choices[0].message.content,
            "".join(streamed),
            final.choices[0].message.content,
        ]

    plain, streamed, helped = await call(work)
    assert "Paris" in plain
    assert plain == streamed == helped


async def test_the_old_completions_and_the_model_list(server: InferdProcess) -> None:
    def work() -> tuple[str, str, list[str], str]:
        with client(server) as api:
            fields = {"model": SMOLLM2, "temperature": 0, "max_tokens": 6}
            prompt = "The capital of France is"
            plain = api.completions.create(**fields, prompt=prompt).choices[0].text
            chunks = api.completions.create(**fields, prompt=prompt, stream=True)
            streamed = "".join(chunk.choices[0].text for chunk in chunks)
            names = [model.id for model in api.models.list()]
            return plain, streamed, names, api.models.retrieve(SMOLLM2).id

    plain, streamed, names, one = await call(work)
    assert plain == streamed != ""
    assert one == SMOLLM2
    assert SMOLLM2 in names


@pytest.mark.parametrize(
    ("change", "kind", "param"),
    [
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"functions": [{"name": "f"}]}, openai.BadRequestError, "functions"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"max_tokens": 8192}, openai.BadRequestError, "messages"),
        ({"model": "no/such"}, openai.NotFoundError, "model"),
        ({"model": "t/broken"}, openai.InternalServerError, None),
    ],
)
async def test_refusals_are_the_clients_own_errors(
    server: InferdProcess, change: dict[str, Any], kind: type[Exception], param: str | None
) -> None:
    def work() -> None:
        with client(server) as api:
            api.chat.completions.create(**(CHAT | change))

    with pytest.raises(kind) as caught:
        await call(work)
    assert isinstance(caught.value, openai.APIStatusError)
    assert caught.value.param == param
    assert caught.value.request_id


async def test_a_wrong_key_is_an_authentication_error(server: InferdProcess) -> None:
    def work() -> None:
        with client(server, api_key="wrong") as api:
            api.chat.completions.create(**CHAT)

    with pytest.raises(openai.AuthenticationError):
        await call(work)


async def test_a_stream_that_breaks_raises_in_the_loop(server: InferdProcess) -> None:
    heard: list[str] = []

    def work() -> None:
        with client(server) as api:
            for chunk in api.chat.completions.create(**body("t/breaks", "a b c d"), stream=True):
                heard.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError, match="told to fail"):
        await call(work)
    assert "".join(heard) == "a b"


async def test_a_busy_model_is_tried_again_until_it_answers(server: InferdProcess) -> None:
    running, waiting = await Visitor.at(server), await Visitor.at(server)
    await running.ask(body("t/busy", "w " * 300, stream=True))
    await running.hear(1)
    await waiting.ask(body("t/busy", "w", stream=True))
    async with server.client() as http:
        await queued(http, "t/busy", 1)

    def impatient() -> None:
        with client(server) as api:
            api.chat.completions.create(**body("t/busy"))

    def patient() -> str:
        with client(server, max_retries=5) as api:
            return api.chat.completions.create(**body("t/busy")).choices[0].message.content

    with pytest.raises(openai.RateLimitError) as caught:
        await call(impatient)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert await call(patient) == "one two"
    await running.leave()
    await waiting.leave()


async def test_leaving_the_loop_stops_the_engine(server: InferdProcess) -> None:
    def work() -> str:
        with client(server) as api:
            fields = body(SMOLLM2, "Tell me everything.", max_tokens=4000, user="left the loop")
            with api.chat.completions.create(**fields, stream=True) as stream:
                for number, _ in enumerate(stream):
                    if number == 3:
                        return stream.response.headers["x-request-id"]
        raise AssertionError("the stream was over too soon")

    request_id = await call(work)
    async with asyncio.timeout(5):
        while not (found := [e for e in server.entries() if e.request_id == request_id]):
            await asyncio.sleep(0.01)
    assert found[0].status == "cancelled"
    assert found[0].output_tokens < 200
