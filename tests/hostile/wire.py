"""A client that sends bytes as they are and reads what comes, whatever was left unsent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from tests.awake import Stopwatch

ANSWER_SECONDS_MAX = 30


class Answer(NamedTuple):
    """What came back until the server closed; status 0: nothing did."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float = 0


def port_of(url: str) -> int:
    """The port of a server's URL."""
    return int(url.rpartition(":")[2])


@asynccontextmanager
async def connected(
    port: int,
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, closed at the end whatever the server did to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def request(
    method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, close: bool = True
) -> bytes:
    """The bytes of a request. A header given as "" is left out."""
    shown = {"host": "t", "content-length": str(len(body)), **headers}
    if close:
        shown["connection"] = "close"
    lines = [f"{name}: {value}" for name, value in shown.items() if value != ""]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])
    return head.encode("latin-1") + body


async def ask(port: int, raw: bytes, seconds_max: float = ANSWER_SECONDS_MAX) -> Answer:
    """Send everything and read until the server closes; it may answer and close before the end."""
    clock, told = Stopwatch(), bytearray()
    async with connected(port) as (reader, writer):
        sending = asyncio.ensure_future(_send(writer, raw))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds_max):
                    await hear(reader, told)
        finally:
            sending.cancel()
            await asyncio.wait([sending])
    return parsed(bytes(told), clock.seconds())


async def hear(reader: asyncio.StreamReader, told: bytearray) -> None:
    """Add what comes until the server closes, in whatever way."""
    with suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            told += chunk


async def _send(writer: asyncio.StreamWriter, raw: bytes) -> None:
    with suppress(ConnectionError):
        for start in range(0, len(raw), 1 << 16):
            writer.write(raw[start : start + (1 << 16)])
            await writer.drain()


def parsed(told: bytes, seconds: float = 0) -> Answer:
    """The first answer in these bytes; chunks of a stream stay as they are."""
    head, _, body = told.partition(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    words = first.split(b" ")
    if len(words) < 2 or not words[1].isdigit():
        return Answer(0, {}, told, seconds)
    pairs = (line.partition(b":") for line in rest)
    headers = {name.decode().lower(): value.strip().decode("latin-1") for name, _, value in pairs}
    return Answer(int(words[1]), headers, body, seconds)
