"""News between gateways: at once over Valkey, and from the database's own rows twice a second.

The rows are what counts: each is read by every gateway, whatever became of its message. A row may
become visible after one with a higher id, so the newest are read again for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import msgspec

from inferd.access.changes import Changes
from inferd.clock import SystemClock
from inferd.errors import InferdError
from inferd.storage import changes as rows
from inferd.storage.database import Database
from inferd.storage.valkey import Valkey

_log = logging.getLogger("inferd.access")

POLL_SECONDS = 0.5
LOOK_BACK_SECONDS = 15.0
"""Longest transaction between the row that it writes and its commit."""
FIRST_ROWS = 100
"""Of before the start: what was read while this gateway built its rooms may be older."""


class _Message(msgspec.Struct, array_like=True):
    sender: str
    kind: str
    subject: str


class FollowChanges:
    """Hears what other gateways changed, and tells them what this one did."""

    def __init__(
        self, changes: Changes, database: Database, valkey: Valkey | None, channel: str, name: str
    ) -> None:
        self._changes = changes
        self._database = database
        self._valkey = valkey
        self._channel = channel
        self._name = name
        self._clock = SystemClock()
        self._floor = 0
        self._newest: deque[tuple[float, int]] = deque()
        self._heard: set[int] = set()
        self._decoder = msgspec.json.Decoder(_Message)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Follow from now on. Do it before anything is remembered."""
        async with self._database.reading() as connection:
            self._floor = max(0, await rows.last(connection) - FIRST_ROWS)
        loop = asyncio.get_running_loop()
        # Held by this object, cancelled and awaited in `close`.
        self._tasks.append(loop.create_task(self._poll()))
        if self._valkey is not None:
            self._changes.pass_on(self._send)
            subscribed = self._valkey.subscribe(self._channel, self._receive)
            self._tasks.append(loop.create_task(subscribed))

    async def close(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._read_rows()
            except InferdError:
                # The database is away; its rows are read when it is back.
                continue
            except Exception:  # noqa: BLE001 news must go on whatever one row did
                _log.exception("changes could not be read")

    async def _read_rows(self) -> None:
        async with self._database.reading() as connection:
            found = await rows.since(connection, self._floor)
        new = [row for row in found if row.id not in self._heard]
        for kind, subject in dict.fromkeys((row.kind, row.subject) for row in new):
            if not await self._changes.tell(kind, subject):
                return
        self._heard.update(row.id for row in new)
        self._forget(max((row.id for row in found), default=self._floor))

    def _forget(self, newest: int) -> None:
        """Ids below the floor are settled; the floor is what was the newest a while ago."""
        now = self._clock.seconds()
        self._newest.append((now, newest))
        while self._newest[0][0] < now - LOOK_BACK_SECONDS:
            self._floor = max(self._floor, self._newest.popleft()[1])
        self._heard = {row_id for row_id in self._heard if row_id > self._floor}

    def _send(self, kind: str, subject: str) -> None:
        if self._valkey is not None:
            message = msgspec.json.encode(_Message(self._name, kind, subject))
            self._valkey.publish(self._channel, message.decode())

    async def _receive(self, text: str) -> None:
        try:
            message = self._decoder.decode(text)
        except msgspec.DecodeError:
            _log.warning("a message on %s was not understood", self._channel)
            return
        if message.sender != self._name:
            await self._changes.tell(message.kind, message.subject)
