"""The model_server replica before a real little server that misbehaves on request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.catalog.card import ModelCard, ModelServer
from inferd.errors import (
    BadRequest,
    ContextLengthExceeded,
    InferdError,
    TooManyRequests,
    Unavailable,
    UpstreamFailed,
)
from inferd.serving.model_server import ModelServerReplica
from inferd.serving.replica import Flight
from inferd.tasks.base import Usage
from inferd.tasks.every import Event
from inferd.tasks.text_generation import (
    ChatPrompt,
    Done,
    Message,
    Sampling,
    Text,
    TextGenerationRequest,
    TextPrompt,
)
from tests.gateway import echo_card

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
CHAT = TextGenerationRequest("t/m", ChatPrompt((Message("user", "hello"),)))
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


class Upstream:
    """Answers each request with the next of its answers, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[bytes, Any]] = []
        self.hung_up = asyncio.Event()
        self.port = 0
        self.serving: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            self.asked.append((head, json.loads(await reader.readexactly(length))))
            await self.answers.pop(0)(writer)
            await writer.drain()
            if self.answers or writer.is_closing():
                return
            watching = asyncio.ensure_future(reader.read())
            await asyncio.wait([watching], timeout=0.2)
            if watching.done():
                self.hung_up.set()
            watching.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            writer.close()

    def card(self, **fields: Any) -> ModelCard:
        url = f"http://127.0.0.1:{self.port}/v1"
        server = msgspec.structs.replace(ModelServer(url), **fields)
        return msgspec.structs.replace(
            echo_card("t/m"), engine="model_server", model_server=server, context_length=4096
        )


@asynccontextmanager
async def upstream(*answers: Answer) -> AsyncGenerator[Upstream]:
    mock = Upstream()
    mock.answers = list(answers)
    server = await asyncio.start_server(mock.serve, "127.0.0.1", 0)
    mock.port = server.sockets[0].getsockname()[1]
    try:
        yield mock
    finally:
        server.close()
        for task in mock.serving:
            task.cancel()
        await asyncio.gather(*mock.serving, return_exceptions=True)


def sending(*parts: bytes, head: bytes = OK) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()

    return answer


def refusing(status: str, body: object, *headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{header}\r\n" for header in headers)
    head = (
        f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n{lines}connection: close\r\n\r\n"
    )
    return sending(content, head=head.encode())


def event(payload: object) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def delta(text: str, *, index: int = 0, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": reason}
    return event({"choices": [choice], **more})


def usage(prompt: int, output: int, cached: int | None = None) -> dict[str, Any]:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": prompt, "completion_tokens": output, **details}


DONE = b"data: [DONE]\n\n"
WHOLE = (
    delta("", reason=None)
    + delta("Hel")
    + delta("lo")
    + delta("", reason="stop")
    + event({"choices": [], "usage": usage(7, 2, 3)})
    + DONE
)


async def events_of(
    card: ModelCard, request: TextGenerationRequest = CHAT, flight: Flight | None = None
) -> list[Event]:
    replica = ModelServerReplica(card)
    await replica.start()
    try:
        return [event async for event in replica.run("R1", request, flight or Flight())]
    finally:
        await replica.stop()


def text_of(events: list[Event], choice: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Text) and e.choice == choice)


async def test_text_reason_and_exact_usage_come_through() -> None:
    flight = Flight()
    async with upstream(sending(WHOLE)) as mock:
        seen = await events_of(mock.card(), flight=flight)
    assert text_of(seen) == "Hello"
    assert seen[-1] == Done(("eos",), Usage(7, 3, 2))
    assert flight.usage == Usage(7, 3, 2)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
async def test_a_stream_may_be_cut_anywhere(size: int) -> None:
    raw = b": comment\r\n\r\nevent: x\r\n" + WHOLE.replace(b"\n\n", b"\r\n\r\n")
    parts = [raw[at : at + size] for at in range(0, len(raw), size)]
    async with upstream(sending(*parts)) as mock:
        seen = await events_of(mock.card())
    assert text_of(seen) == "Hello"
    assert seen[-1] == Done(("eos",), Usage(7, 3, 2))


async def test_without_usage_the_count_is_an_estimate_and_says_so() -> None:
    async with upstream(sending(delta("a"), delta("b"), delta("", reason="length"), DONE)) as mock:
        seen = await events_of(mock.card())
    assert isinstance(seen[-1], Done)
    assert seen[-1].reasons == ("length",)
    assert seen[-1].usage.estimated
    assert seen[-1].usage.output_tokens == 2


async def test_n_choices_are_kept_apart() -> None:
    parts = (
        delta("a0"),
        delta("b0", index=1),
        delta("a1", reason="stop"),
        delta("b1", index=1, reason="length"),
        DONE,
    )
    async with upstream(sending(*parts)) as mock:
        seen = await events_of(mock.card(), msgspec.structs.replace(CHAT, n=2))
    assert (text_of(seen, 0), text_of(seen, 1)) == ("a0a1", "b0b1")
    assert isinstance(seen[-1], Done)
    assert seen[-1].reasons == ("eos", "length")


async def test_only_allow_listed_fields_travel_and_the_key_is_shown_to_the_server_alone(
    tmp_path: Path,
) -> None:
    key = tmp_path / "key"
    key.write_text("upstream-secret\n")
    request = msgspec.structs.replace(
        CHAT, max_tokens=5, stop=("x",), sampling=Sampling(temperature=0, top_k=3), cache_scope="a"
    )
    async with upstream(sending(WHOLE)) as mock:
        card = mock.card(api_key_file=str(key), model="there", continuous_usage=True)
        await events_of(card, request)
    head, body = mock.asked[0]
    assert head.startswith(b"POST /v1/chat/completions ")
    assert b"authorization: bearer upstream-secret" in head.lower()
    assert body == {
        "model": "there",
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 5,
        "stop": ["x"],
        "temperature": 0,
        "top_k": 3,
    }


async def test_a_raw_prompt_goes_to_completions() -> None:
    told = event({"choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}]})
    async with upstream(sending(told, DONE)) as mock:
        seen = await events_of(mock.card(), TextGenerationRequest("t/m", TextPrompt("say")))
    assert text_of(seen) == "hi"
    assert mock.asked[0][0].startswith(b"POST /v1/completions ")
    assert mock.asked[0][1]["prompt"] == "say"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusing("400 Bad", {"error": {"message": "no good"}}), BadRequest),
        (
            refusing("400 Bad", {"error": {"message": "x", "code": "context_length_exceeded"}}),
            ContextLengthExceeded,
        ),
        (refusing("422 Bad", {"detail": [{"msg": "x"}]}), BadRequest),
        (refusing("429 Busy", {}, "retry-after: 7"), TooManyRequests),
        (refusing("503 Loading", b"not json"), Unavailable),
        (refusing("500 Broken", {"error": "secret path"}), UpstreamFailed),
        (refusing("401 No", {"error": {"message": "bad key"}}), UpstreamFailed),
        (refusing("302 Found", b"", "location: http://127.0.0.1:1/"), UpstreamFailed),
        (sending(b"garbage", head=b""), UpstreamFailed),
        (sending(delta("a"), event({"error": {"message": "boom"}})), UpstreamFailed),
        (sending(delta("a"), event({"error_message": "boom"})), UpstreamFailed),
        (sending(delta("a")), UpstreamFailed),
        (sending(b"data: {no json}\n\n"), UpstreamFailed),
        (sending(delta("a", index=5)), UpstreamFailed),
    ],
)
async def test_what_the_server_refuses_or_breaks_becomes_our_own_error(
    answer: Answer, error: type[InferdError]
) -> None:
    async with upstream(answer) as mock:
        with pytest.raises(error) as caught:
            await events_of(mock.card())
    assert "secret path" not in caught.value.message
    assert "127.0.0.1" not in caught.value.message
    if error is TooManyRequests:
        assert caught.value.retry_after_seconds == 7


async def test_a_server_that_is_away() -> None:
    async with upstream() as mock:
        card = mock.card()
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await events_of(card)


async def test_leaving_closes_the_connection_and_keeps_the_last_usage() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        for count in range(100_000):
            writer.write(delta("x", usage=usage(5, count + 1)))
            await writer.drain()
            await asyncio.sleep(0.001)

    flight = Flight()
    async with upstream(endless) as mock:
        replica = ModelServerReplica(mock.card())
        await replica.start()
        async with aclosing(replica.run("R1", CHAT, flight)) as events:
            async for event_ in events:
                if isinstance(event_, Text) and event_.usage.output_tokens >= 5:
                    break
        await asyncio.wait_for(mock.hung_up.wait(), 5)
        await replica.stop()
    assert flight.usage.input_tokens == 5
    assert 5 <= flight.usage.output_tokens < 1000
    assert not flight.usage.estimated


async def test_a_server_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(OK + delta("a"))
        await asyncio.Event().wait()

    monkeypatch.setattr("inferd.serving.model_server.SILENCE_SECONDS_MAX", 0.1)
    async with upstream(silent) as mock:
        with pytest.raises(UpstreamFailed):
            await events_of(mock.card())


async def test_a_connection_serves_many_requests_and_a_closed_one_is_replaced() -> None:
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(WHOLE), WHOLE)
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            for _ in range(3):
                asked = await reader.readuntil(b"\r\n\r\n")
                length = int(asked.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(head + whole)
        writer.close()
        left.set()

    left = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    mock = Upstream()
    mock.port = server.sockets[0].getsockname()[1]
    replica = ModelServerReplica(mock.card())
    await replica.start()
    for _ in range(7):
        seen = [event async for event in replica.run("R1", CHAT, Flight())]
        assert text_of(seen) == "Hello"
    assert connections == 3
    left.clear()
    await replica.stop()
    await asyncio.wait_for(left.wait(), 5)
    server.close()


async def test_a_key_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    async with upstream() as mock:
        with pytest.raises(Unavailable) as caught:
            await events_of(mock.card(api_key_file=str(tmp_path / "none")))
    assert str(tmp_path) not in caught.value.message
