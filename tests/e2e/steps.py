"""What end-to-end tests do again and again: ask, wait until the server says so, leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from inferd.catalog.card import ModelCard
from inferd.storage.rows import EntryRow
from tests.gateway import echo_card
from tests.process import TOKEN, InferdProcess

CHAT = "/v1/chat/completions"
WAIT_SECONDS_MAX = 20


def body(model: str, text: str = "one two", **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def card(name: str, *tags: str, **changes: Any) -> ModelCard:
    """An echo model with knobs, such as `token_ms=5`."""
    return echo_card(name, tags=tuple(f"echo:{tag}" for tag in tags), **changes)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until something holds."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not await holds():
            await asyncio.sleep(0.005)


async def model_state(client: httpx.AsyncClient, model: str, **wanted: object) -> None:
    """Wait until /v1/status says so of a model, e.g. `in_flight=1`."""

    async def holds() -> bool:
        models = (await client.get("/v1/status")).json()["models"]
        return any(m["model"] == model and wanted.items() <= m.items() for m in models)

    await eventually(holds)


async def in_flight(client: httpx.AsyncClient, model: str, count: int) -> None:
    """Wait until so many requests of a model are being computed."""
    await model_state(client, model, in_flight=count)


async def queued(client: httpx.AsyncClient, model: str, count: int) -> None:
    """Wait until so many requests of a model stand in line, behind others or behind a load."""
    await model_state(client, model, queued=count)


async def entry_of(server: InferdProcess, end_user: str) -> EntryRow:
    """Wait for the one ledger entry of a request that carried this `user`."""
    found: list[EntryRow] = []

    async def written() -> bool:
        found[:] = [entry for entry in server.entries() if entry.end_user == end_user]
        return bool(found)

    await eventually(written)
    (entry,) = found
    return entry


def is_alive(pid: int) -> bool:
    """A process that is there and no zombie that its new parent has not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # The second: it ended while its file was read.
        return False


async def gone(pid: int) -> None:
    """Wait until a process has ended."""

    async def holds() -> bool:
        return not is_alive(pid)

    await eventually(holds)


class Visitor:
    """A bare connection, which sends requests without waiting for answers, and may hang up."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def at(cls, server: InferdProcess) -> Visitor:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2])))

    async def ask(self, payload: dict[str, Any], path: str = CHAT) -> None:
        """Send a request."""
        content = json.dumps(payload).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {TOKEN}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        await self._writer.drain()

    async def hear(self, count: int, mark: bytes = b"data: ") -> None:
        """Read on until lines that begin with `mark` came so many times."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while count:
                line = await self._reader.readline()
                assert line, "the server hung up first"
                count -= line.startswith(mark)

    async def leave(self) -> None:
        """Hang up."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
