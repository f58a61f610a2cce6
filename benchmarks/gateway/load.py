"""The load client: raw connections on uvloop, so that it is never what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from typing import NamedTuple

from benchmarks.gateway.upstream import MODEL


class Target(NamedTuple):
    """Where to send requests."""

    name: str
    port: int
    token: str
    path: str = "/v1/chat/completions"

    def request(self, *, stream: bool, max_tokens: int, pace_ms: int = 0) -> bytes:
        """One request as bytes. The pace travels in the prompt, where every proxy leaves it."""
        text = f"Say something short. pace-{pace_ms}" if pace_ms else "Say something short."
        body = json.dumps(
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": text}],
                "stream": stream,
                "max_tokens": max_tokens,
            }
        ).encode()
        return (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"authorization: Bearer {self.token}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body


class Result(NamedTuple):
    """Latencies in seconds, and how long the whole run took."""

    latencies: list[float]
    first_bytes: list[float]
    seconds: float

    def percentile(self, share: float) -> float:
        """A latency in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Connection:
    """One keep-alive connection."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def open(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        return self

    async def ask(self, raw: bytes) -> tuple[float, float]:
        """(seconds to the first body byte, seconds to the end). Raises for any status but 200."""
        began = time.perf_counter()
        self._writer.write(raw)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{self._target.name}: {head[:200]!r}")
        lower = head.lower()
        if b"content-length: " in lower:
            length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
            await self._reader.readexactly(length)
            return (now := time.perf_counter() - began), now
        first = 0.0
        while True:
            size = int(await self._reader.readline(), 16)
            first = first or time.perf_counter() - began
            await self._reader.readexactly(size + 2)
            if size == 0:
                return first, time.perf_counter() - began

    def close(self) -> None:
        self._writer.close()


async def closed_loop(target: Target, raw: bytes, *, clients: int, requests: int) -> Result:
    """Each client sends its next request when the last is answered."""
    connections = [await Connection(target).open() for _ in range(clients)]
    ends: list[tuple[float, float]] = []
    left = iter(range(requests))

    async def one(connection: Connection) -> None:
        for _ in left:
            ends.append(await connection.ask(raw))

    began = time.perf_counter()
    await asyncio.gather(*(one(connection) for connection in connections))
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return Result([end for _, end in ends], [first for first, _ in ends], seconds)


async def open_loop(target: Target, raw: bytes, *, per_second: int, seconds: float) -> Result:
    """Requests leave on a schedule, whether or not earlier ones came back."""
    idle: list[Connection] = []
    ends: list[tuple[float, float]] = []

    async def one(due: float) -> None:
        connection = idle.pop() if idle else await Connection(target).open()
        await connection.ask(raw)
        ends.append((0.0, time.perf_counter() - due))
        idle.append(connection)

    began = time.perf_counter()
    tasks: list[asyncio.Task[None]] = []
    for number in range(int(per_second * seconds)):
        due = began + number / per_second
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        tasks.append(asyncio.ensure_future(one(due)))
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return Result([end for _, end in ends], [], time.perf_counter() - began)
