"""A small HTTP/1.1 client for one origin: POST a body, read the answer as it comes.

It lives in the gateway's event loop and parses with httptools. A client with threads of its own
costs several hand-overs of the interpreter lock for each piece of a stream; see
docs/decisions/0008.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS_MAX = 10
IDLE_MAX = 64
"""Kept-alive connections."""
BUFFERED_BYTES_MAX = 1 << 20
"""Bytes of one answer that nobody took yet; then the socket is not read."""


class UpstreamError(Exception):
    """The server cannot be reached, broke off, or does not speak HTTP."""


class _Stale(UpstreamError):
    """A kept-alive connection was closed before a byte of the answer came."""


class UpstreamAnswer:
    """Status, headers (lower case) and a body that is read piece by piece."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers

    async def read(self) -> bytes | None:
        """All that has come since the last call; None at the end. Raises UpstreamError."""
        return await self._connection.read()


class UpstreamClient:
    """Connections to one origin, kept alive."""

    def __init__(self, url: str, headers: dict[str, str], *, silence_seconds: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._lines = f"host: {parts.netloc.rpartition('@')[2]}\r\n{lines}".encode("latin-1")
        self._silence_seconds = silence_seconds
        self._idle: deque[_Connection] = deque()

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncGenerator[UpstreamAnswer]:
        """Send one request. Leaving before the end of the answer closes its connection."""
        request = b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (
            (self._base + path).encode("ascii"),
            self._lines,
            len(body),
            body,
        )
        connection = await self._send(request)
        try:
            yield UpstreamAnswer(connection)
        finally:
            self._give_back(connection)

    async def _send(self, request: bytes) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.ask(request)
            except _Stale:
                continue
            except BaseException:
                connection.close()
                raise
            return connection
        connection = await self._connect()
        try:
            await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._silence_seconds),
                    self._host,
                    self._port,
                    ssl=self._tls,
                )
        except (OSError, TimeoutError) as error:
            raise UpstreamError(type(error).__name__) from error
        return connection

    def _give_back(self, connection: _Connection) -> None:
        if connection.reusable and len(self._idle) < IDLE_MAX:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close what is kept alive."""
        while self._idle:
            self._idle.pop().close()


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, silence_seconds: float) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._silence_seconds = silence_seconds
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._headed = self._complete = self._reused = self._keep_alive = False
        self._lost: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_seconds = 0.0
        self._loop = asyncio.get_running_loop()

    @property
    def reusable(self) -> bool:
        """The answer was read to its end and the server keeps the connection."""
        if self._lost is not None or not self._complete or self._transport is None:
            return False
        return self._keep_alive and not self._transport.is_closing()

    async def ask(self, request: bytes) -> None:
        """Send and wait for the head of the answer."""
        if self._lost is not None or self._transport is None:
            raise _Stale("closed")
        self._parser = httptools.HttpResponseParser(self)
        self.headers, self._pieces, self._buffered = {}, [], 0
        self._headed = self._complete = False
        self._transport.write(request)
        self._heard_seconds = self._loop.time()
        self._listen()
        while not self._headed:
            if self._lost is not None:
                raise _Stale("closed") if self._reused else self._lost
            await self._wait()
        self.status = self._parser.get_status_code()
        self._reused = True

    async def read(self) -> bytes | None:
        while not self._pieces:
            if self._complete:
                return None
            if self._lost is not None:
                raise self._lost
            await self._wait()
        content = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if self._buffered > BUFFERED_BYTES_MAX and self._transport is not None:
            self._transport.resume_reading()
        self._buffered = 0
        return content

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _listen(self) -> None:
        """Look at the clock once in a while; a timer for each piece would cost more than it."""
        silent = self._loop.time() - self._heard_seconds
        if silent >= self._silence_seconds:
            self._lost = UpstreamError("silent for too long")
            self.close()
            self._wake()
        else:
            self._timer = self._loop.call_later(self._silence_seconds - silent, self._listen)

    def rest(self) -> None:
        """Nothing is expected: stop listening for silence."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        self.rest()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's classes; both set TCP_NODELAY.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._heard_seconds = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lost = UpstreamError(f"no HTTP: {type(error).__name__}")
            self.close()
        if self._buffered > BUFFERED_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        has_length = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if self._headed and not self._complete and exc is None and not has_length:
            # Without a length the end of the connection is the end of the body.
            self._complete = True
        self._lost = self._lost or UpstreamError("the connection was closed")
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # httptools calls these while it parses.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._headed = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()
