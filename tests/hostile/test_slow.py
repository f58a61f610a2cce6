"""Clients that send slowly, and that read slowly, against limits made short."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from inferd.api import exchange, protocol
from inferd.api.server import listen, protocol_server
from inferd.api.services import ApiOptions
from tests.gateway import ADMIN_TOKEN, Gateway, echo_card, gateway, until
from tests.hostile.attack import CHAT, JSON
from tests.hostile.wire import ask, connected, hear, parsed, request
from tests.ledger import entries_in

HEADERS = {"authorization": f"Bearer {ADMIN_TOKEN}", **JSON}


@asynccontextmanager
async def listening(
    tmp_path: Path, options: ApiOptions, *tags: str
) -> AsyncGenerator[tuple[Gateway, int]]:
    """A gateway with one slow slot, on a port."""
    card = echo_card(slots=1, tags=tags, context_length=2_000_000)
    async with gateway(tmp_path, card, options=options) as running:
        server = protocol_server(running.client.app)
        with closing(listen("127.0.0.1", 0)) as listener:
            async with asyncio.TaskGroup() as group:
                group.create_task(server.run_on(listener))
                await server.up.wait()
                try:
                    yield running, listener.getsockname()[1]
                finally:
                    server.should_exit = True


def chat(text: str = "one", **fields: object) -> bytes:
    messages = [{"role": "user", "content": text}]
    return msgspec.json.encode({"model": "test/echo", "messages": messages, **fields})


async def trickle(writer: asyncio.StreamWriter, raw: bytes) -> None:
    """A byte now and then, until the server has had enough."""
    for byte in raw:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("length", ["100000", ""])
async def test_a_body_that_trickles_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: str
) -> None:
    monkeypatch.setattr(exchange, "LINGER_SECONDS", 0.1)
    options = ApiOptions(body_seconds_max=0.2)
    chunked = {"transfer-encoding": "chunked"} if not length else {}
    head = request("POST", CHAT, {**HEADERS, "content-length": length, **chunked})
    async with listening(tmp_path, options) as (gate, port), connected(port) as (reader, writer):
        writer.write(head)
        sending = asyncio.ensure_future(trickle(writer, b"1\r\n \r\n" * 10_000))
        told = bytearray()
        await asyncio.wait_for(hear(reader, told), 10)
        sending.cancel()
        await asyncio.wait([sending])
        assert parsed(bytes(told)).status == 400
        assert not gate.flights
        assert not entries_in(gate.database_path)


async def test_headers_that_trickle_are_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS_MAX", 0.2)
    async with (
        listening(tmp_path, ApiOptions()) as (gate, port),
        connected(port) as (reader, writer),
    ):
        sending = asyncio.ensure_future(
            trickle(writer, b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 9999)
        )
        told = bytearray()
        await asyncio.wait_for(hear(reader, told), 10)
        assert not told
        sending.cancel()
        await asyncio.wait([sending])
        assert not gate.flights


async def test_who_reads_nothing_is_cut_off_and_pays_for_what_was_made(tmp_path: Path) -> None:
    """Back-pressure: the engine is not read on for somebody who does not read."""
    words = 2000
    options = ApiOptions(stall_seconds=0.3, ping_seconds=0.1)
    async with listening(tmp_path, options) as (gate, port):
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.settimeout(0)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(peer, ("127.0.0.1", port))
            raw = request("POST", CHAT, HEADERS, chat(("w" * 4000 + " ") * words, stream=True))
            await loop.sock_sendall(peer, raw)
            await until(lambda: bool(gate.flights))
            models = gate.services.router.snapshot
            await until(lambda: models().models[0].in_flight == 0)
        # The slot is free first; the commit follows on the ledger's own thread.
        await until(lambda: bool(entries_in(gate.database_path)))
        (entry,) = entries_in(gate.database_path)
        assert entry.status == "cancelled"
        assert 0 < entry.output_tokens < words / 2
        assert entry.cost_nanos > 0


async def test_a_slow_sender_holds_no_slot(tmp_path: Path) -> None:
    async with listening(tmp_path, ApiOptions()) as (_, port), connected(port) as (_, writer):
        writer.write(request("POST", CHAT, {**HEADERS, "content-length": "5000"}, b'{"model'))
        await writer.drain()
        answer = await ask(port, request("POST", CHAT, HEADERS, chat()))
        assert answer.status == 200
