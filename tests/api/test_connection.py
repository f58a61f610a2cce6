"""Real sockets: connections that misbehave, and clients that leave unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from inferd.api import protocol
from inferd.api.server import listen, protocol_server
from tests.gateway import ADMIN_TOKEN, Gateway, echo_card, gateway, until
from tests.ledger import entries, entries_in

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def request(text: str, *, stream: bool = False, path: str = "/v1/chat/completions") -> bytes:
    body = msgspec.json.encode(
        {
            "model": "test/echo",
            "messages": [{"role": "user", "content": text}],
            "stream": stream,
        }
    )
    return (
        f"POST {path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


class Listening:
    def __init__(self, gate: Gateway, port: int) -> None:
        self.gate = gate
        self._port = port

    async def connect(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self._port)


@asynccontextmanager
async def listening(tmp_path: Path, *tags: str) -> AsyncGenerator[Listening]:
    async with gateway(tmp_path, echo_card(slots=1, tags=tags)) as running:
        listener = listen("127.0.0.1", 0)
        server = protocol_server(running.client.app)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.run_on(listener))
            await server.up.wait()
            yield Listening(running, listener.getsockname()[1])
            server.should_exit = True


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split()[1])
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.startswith(b"content-length")
    )
    return status, await reader.readexactly(length)


def _generating(running: Gateway) -> Callable[[], bool]:
    return lambda: bool(running.flights) and running.flights[-1].usage.output_tokens > 2


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_is_noticed_and_billed(tmp_path: Path, stream: bool) -> None:
    async with listening(tmp_path, "echo:token_ms=5") as server:
        _, writer = await server.connect()
        writer.write(request("w " * 500, stream=stream))
        await until(_generating(server.gate))
        await hang_up(writer)
        await until(lambda: server.gate.services.router.snapshot().models[0].in_flight == 0)
        await until(lambda: len(entries_in(server.gate.database_path)) == 1)
        (entry,) = await entries(server.gate)
        assert (entry.status, entry.stage) == ("cancelled", "decode")
        assert 0 < entry.output_tokens < 500


async def test_a_client_that_pipelined_a_second_request_and_left_is_noticed(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path, "echo:token_ms=5") as server:
        _, writer = await server.connect()
        writer.write(request("w " * 900))
        await until(_generating(server.gate))
        writer.write(request("second"))
        await writer.drain()
        await hang_up(writer)
        await until(lambda: len(entries_in(server.gate.database_path)) == 1)
        (entry,) = await entries(server.gate)
        assert entry.status == "cancelled"
        assert entry.output_tokens < 900


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        reader, writer = await server.connect()
        writer.write(request("first one") + request("second one"))
        for word in (b"first one", b"second one"):
            status, body = await read_response(reader)
            assert status == 200
            assert word in body
        await hang_up(writer)


async def test_one_connection_serves_many_requests(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        reader, writer = await server.connect()
        for turn in range(20):
            writer.write(request(f"turn {turn}"))
            assert (await read_response(reader))[0] == 200
        await hang_up(writer)


async def test_a_refusal_before_the_body_was_read_closes_the_connection(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        reader, writer = await server.connect()
        writer.write(request("x" * 10).replace(ADMIN_TOKEN.encode(), b"wrong"))
        assert (await read_response(reader))[0] == 401
        assert await reader.read() == b""
        await hang_up(writer)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"NOT HTTP\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_400_and_a_closed_connection(
    tmp_path: Path, raw: bytes
) -> None:
    async with listening(tmp_path) as server:
        reader, writer = await server.connect()
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401"))
        await hang_up(writer)


async def test_headers_over_the_cap_end_the_connection(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        reader, writer = await server.connect()
        writer.write(b"GET /health HTTP/1.1\r\n")
        answer = b""
        with suppress(ConnectionError):
            for _ in range(1000):
                writer.write(b"x-filler: " + b"a" * 8000 + b"\r\n")
                await writer.drain()
            pytest.fail("eight megabytes of headers were read")
        with suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 400") or not answer
        await hang_up(writer)


async def test_headers_that_never_end_are_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS_MAX", 0.05)
    async with listening(tmp_path) as server:
        reader, writer = await server.connect()
        writer.write(b"GET /health HTTP/1.1\r\nhost: t\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        await hang_up(writer)
