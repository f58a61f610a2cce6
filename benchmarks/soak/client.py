"""Clients that only ask, check the status and read on: raw protocols, kept-alive connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

from benchmarks.soak.scenario import Ask

ANSWER_SECONDS_MAX = 60.0


class Wrong(Exception):
    """An answer that must not be."""


class Caller(asyncio.Protocol):
    """One client: one request after another until there are none."""

    def __init__(self, port: int, asks: Iterator[Ask], told: Counter[str]) -> None:
        self._port = port
        self._asks = asks
        self._told = told
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._held = bytearray()
        self._leaves = False

    async def run(self) -> None:
        """Ask all that is left. Raises Wrong."""
        loop = asyncio.get_running_loop()
        for ask in self._asks:
            if self._transport is None:
                await loop.create_connection(lambda: self, "127.0.0.1", self._port)
            assert self._transport is not None
            self._held.clear()
            self._leaves = ask.leaves == "first"
            self._answer = loop.create_future()
            self._transport.write(ask.request)
            if ask.leaves == "sent":
                # The request is on its way, and the engine has begun when it is noticed.
                await asyncio.sleep(0.005)
                self._hang_up()
                status = 0
            else:
                async with asyncio.timeout(ANSWER_SECONDS_MAX):
                    status = await self._answer
            self._told[ask.name] += 1
            if status != ask.status:
                raise Wrong(f"{ask.name}: {status} {bytes(self._held[:600])!r}")
        self._hang_up()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        self._held += data
        if self._leaves:
            self._hang_up()
            self._end()
        elif _whole(self._held):
            if b"connection: close" in self._held[:2000].lower():
                self._hang_up()
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server hung up, or we did."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Wrong(f"hung up: {exc!r}"))
            self._answer.exception()

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _end(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(int(self._held[9:12]))


def _whole(held: bytearray) -> bool:
    """The answer is complete."""
    end = held.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = held.find(b"content-length: ", 0, end)
    if at < 0:
        return held.endswith(b"0\r\n\r\n")
    length = int(held[at + 16 : held.index(b"\r\n", at)])
    return len(held) >= end + 4 + length
