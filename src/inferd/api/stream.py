"""A stream of server-sent events to one client.

Headers go out with the first event, so that an early error keeps its status; when the first event
is late (a model loads, a queue) they go out alone, followed by comment pings. A client that stops
reading for too long is treated as gone.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from inferd.api.exchange import Exchange
from inferd.api.services import ApiOptions
from inferd.clock import Clock

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """Writes events, and comments where there are none."""

    def __init__(self, exchange: Exchange, options: ApiOptions, clock: Clock) -> None:
        self.started = False
        self._exchange = exchange
        self._options = options
        self._clock = clock
        self._written_seconds = clock.seconds()
        self._writing = False
        self._task = asyncio.current_task()
        self._ping: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(options.headers_after_seconds, self._tick)

    async def send(self, event: bytes) -> None:
        """Send one or more events."""
        if not self.started:
            await self._start()
        self._written_seconds = self._clock.seconds()
        self._writing = True
        await self._exchange.write(event)
        self._writing = False

    async def end(self, event: bytes) -> None:
        """Send the last bytes and end the answer."""
        if not self.started:
            await self._start()
        self._timer.cancel()
        await self._exchange.end(event)

    async def close(self) -> None:
        """Stop pinging. Always call this."""
        self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()
            await asyncio.wait([self._ping])

    async def _start(self) -> None:
        self.started = True
        await self._exchange.start(200, _HEADERS)

    def _tick(self) -> None:
        options, now = self._options, self._clock.seconds()
        silent = now - self._written_seconds
        if self._writing or (self._ping is not None and not self._ping.done()):
            if silent >= options.stall_seconds and self._task is not None:
                self._exchange.leave(self._task)
                return
        elif not self.started or silent >= options.ping_seconds:
            # Held by the stream, cancelled in `close`.
            self._ping = asyncio.create_task(self._send_ping())  # noqa: TID251
        self._timer = asyncio.get_running_loop().call_later(options.ping_seconds / 2, self._tick)

    async def _send_ping(self) -> None:
        stamp = datetime.fromtimestamp(self._clock.unix_ns() / 1e9, UTC).isoformat(" ")
        await self.send(f": ping - {stamp}\n\n".encode())
