"""One multiplexed connection to Valkey or Redis, and a subscription. Its absence is normal.

Calls that are ready together travel together; answers come in order, so a call costs one round
trip and no connection of its own. A server that is silent for `SILENCE_SECONDS_MAX` counts as
away: what waits fails with Unavailable, and the connection is opened again until it is back.
The client library is in the extra `cluster`, and imported only if a server is set.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from inferd.errors import BadRequest, Unavailable

_log = logging.getLogger("inferd.storage")

SILENCE_SECONDS_MAX = 0.5
LOOKS = 5
CONNECT_SECONDS_MAX = 1.0
RETRY_SECONDS = 0.2
CANCEL_SECONDS = 0.2
"""Between two cancellations of a task that has not ended."""
_SCHEMES = ("valkey://", "valkeys://", "redis://", "rediss://", "unix://")

Up = Callable[[], None]


def check_url(url: str) -> None:
    """Raise BadRequest if no server can be at such a URL, or the extra is missing."""
    if not url.startswith(_SCHEMES):
        raise BadRequest(f"valkey_url begins with one of {', '.join(_SCHEMES)}.")
    if importlib.util.find_spec("valkey") is None:
        raise BadRequest(
            "valkey_url needs the extra 'cluster', which is not installed: "
            "pip install 'inferd[cluster]'."
        )


def _pool(url: str) -> Any:
    # By name: the package is optional, and its types say little.
    connections = importlib.import_module("valkey.asyncio.connection")
    plain = url.replace("rediss://", "valkeys://", 1).replace("redis://", "valkey://", 1)
    return connections.ConnectionPool.from_url(
        plain, decode_responses=True, socket_connect_timeout=CONNECT_SECONDS_MAX
    )


class Valkey:
    """The connection. `open` it inside an event loop; `close` it at the end."""

    def __init__(self, url: str, script: str = "") -> None:
        check_url(url)
        self._pool = _pool(url)
        self._script = script
        self._connection: Any = None
        self._sha = ""
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[Any] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[tuple[Up, Up]] = []

    @property
    def is_up(self) -> bool:
        """True while calls can be made."""
        return bool(self._sha)

    def watch(self, on_up: Up, on_down: Up) -> None:
        """Call `on_up` now if the server can be called, and whenever it can again; else `on_down`.

        What `on_up` calls goes before every other call on a new connection.
        """
        self._listeners.append((on_up, on_down))
        if self.is_up:
            on_up()

    async def open(self) -> None:
        """Connect, or go on trying; returns after the first try."""
        first = asyncio.get_running_loop().create_future()
        # Held by the connection, cancelled and awaited in `close`.
        self._own(self._stay_connected(first))
        await first

    async def close(self) -> None:
        """Hang up."""
        await _ended(self._tasks)
        await self._hang_up()

    def run(self, keys: list[str], *arguments: str | int) -> asyncio.Future[Any]:
        """Call the script. The future fails with Unavailable while the server is away."""
        return self._call("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def publish(self, channel: str, message: str) -> None:
        """Tell whoever listens now; lost if the server is away."""
        if self.is_up:
            self._call("PUBLISH", channel, message).add_done_callback(_seen)

    async def subscribe(self, channel: str, on_message: Callable[[str], Awaitable[None]]) -> None:
        """Call `on_message` with each message, for ever; connects again when it must."""
        while True:
            connection = self._pool.make_connection()
            with suppress(*_failures()):
                async with asyncio.timeout(CONNECT_SECONDS_MAX):
                    await connection.connect()
                    await connection.send_command("SUBSCRIBE", channel)
                while True:
                    kind, _, message = await connection.read_response()
                    if kind == "message":
                        await on_message(message)
            await connection.disconnect(nowait=True)
            await asyncio.sleep(RETRY_SECONDS)

    def _call(self, *command: str | int) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self._sha:
            done.set_exception(_away())
            return done
        self._waiting.append(done)
        self._unsent += self._connection.pack_command(*command)
        self._wake.set()
        return done

    async def _stay_connected(self, first: asyncio.Future[None]) -> None:
        told = False
        while True:
            try:
                await self._connect()
            except _failures() as error:
                if not told:
                    _log.warning("Valkey is away: %s", type(error).__name__)
                told = True
            else:
                if told:
                    _log.warning("Valkey is back")
                told = False
                await self._converse(first)
            if not first.done():
                first.set_result(None)
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect(self) -> None:
        connection = self._pool.make_connection()
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                await connection.connect()
                await connection.send_command("SCRIPT", "LOAD", self._script or "return 1")
                sha = await connection.read_response()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection, self._sha = connection, sha

    async def _converse(self, first: asyncio.Future[None]) -> None:
        """Until the connection breaks or the server falls silent."""
        for on_up, _ in self._listeners:
            on_up()
        if not first.done():
            first.set_result(None)
        loop = asyncio.get_running_loop()
        parts = [loop.create_task(part()) for part in (self._send, self._read, self._guard)]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First of all those who wait hear of it: they wait for no task of ours.
            await self._hang_up()
            for ended in await _ended(parts):
                if not isinstance(ended, _failures()):
                    _log.error("the conversation with Valkey broke", exc_info=ended)

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            ready, self._unsent = self._unsent, []
            if ready:
                await self._connection.send_packed_command(ready, check_health=False)

    async def _read(self) -> None:
        errors = importlib.import_module("valkey.exceptions")
        while True:
            try:
                answer: Any = await self._connection.read_response(disconnect_on_error=False)
            except errors.ResponseError as error:
                answer = error
            done = self._waiting.popleft()
            if done.done():
                continue
            if isinstance(answer, Exception):
                _log.error("Valkey refused a call: %s", answer)
                done.set_exception(_away())
            else:
                done.set_result(answer)

    async def _guard(self) -> None:
        """Ends when one call is the oldest for too long.

        It looks several times: if this process itself stood still, the answer may lie here unread.
        """
        oldest: asyncio.Future[Any] | None = None
        looks = 0
        while looks < LOOKS:
            await asyncio.sleep(SILENCE_SECONDS_MAX / LOOKS)
            now = self._waiting[0] if self._waiting else None
            looks = looks + 1 if now is not None and now is oldest else 0
            oldest = now

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        was_up, self._sha = bool(self._sha), ""
        if connection is not None:
            await connection.disconnect(nowait=True)
        self._unsent.clear()
        if was_up:
            # Before anybody who waits goes on: they must find that it is away.
            for _, on_down in self._listeners:
                on_down()
        while self._waiting:
            done = self._waiting.popleft()
            if not done.done():
                done.set_exception(_away())
                done.exception()

    def _own(self, work: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))


async def _ended(parts: list[asyncio.Task[None]]) -> list[Exception]:
    """Cancel tasks and wait for their ends; what they failed with.

    Cancelled again and again: the client library may lose a cancellation in what it catches.
    """
    pending = set(parts)
    while pending:
        for part in pending:
            part.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)
    failed = [part.exception() for part in parts if not part.cancelled()]
    return [error for error in failed if isinstance(error, Exception)]


def _failures() -> tuple[type[Exception], ...]:
    errors = importlib.import_module("valkey.exceptions")
    return (errors.ValkeyError, OSError, TimeoutError, asyncio.IncompleteReadError)


def _away() -> Unavailable:
    return Unavailable("The limits' server is away.", retry_after_seconds=1)


def _seen(done: asyncio.Future[Any]) -> None:
    """A lost message is told by the poll of the database instead."""
    if not done.cancelled():
        done.exception()
