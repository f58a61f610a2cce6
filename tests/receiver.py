"""A receiver of webhooks on loopback: notes what comes, answers what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass
class Delivered:
    """One delivery."""

    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return msgspec.json.decode(self.body)


@dataclass
class Receiver:
    """Where it listens, and what came."""

    url: str = ""
    statuses: list[int] = field(default_factory=list[int])
    """What it answers, one after the other; then 200. 0: it hangs up."""
    came: asyncio.Queue[Delivered] = field(default_factory=asyncio.Queue[Delivered])

    async def next(self) -> Delivered:
        """The next delivery."""
        async with asyncio.timeout(20):
            return await self.came.get()


@asynccontextmanager
async def receiver() -> AsyncGenerator[Receiver]:
    """Receive until the end."""
    made = Receiver()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
            headers = {name.lower(): value for name, _, value in lines}
            body = await reader.readexactly(int(headers["content-length"]))
            made.came.put_nowait(Delivered(headers, body))
            status = made.statuses.pop(0) if made.statuses else 200
            if status:
                # A redirect must not be followed, nor a long answer be read.
                more = "Location: http://127.0.0.1:1/\r\n" if status == 302 else ""
                writer.write(f"HTTP/1.1 {status} X\r\n{more}Content-Length: 0\r\n\r\n".encode())
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=1 << 20)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield made
    finally:
        server.close()
