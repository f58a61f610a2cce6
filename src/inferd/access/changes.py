"""News of what changed, for everything that is remembered: callers, limits, purses, prices.

Whoever changes something in the database says so in the same transaction:

    async with changes.writing() as change:
        await tokens.revoke(change.connection, ...)
        change.touch("token", token_id)

When the block ends, the listeners of this gateway have heard of it; other gateways hear of it
within a second. A listener may hear the same twice, or None: anything of its kind may have changed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from inferd.clock import Clock, SystemClock
from inferd.storage import changes
from inferd.storage.changes import Change, Kind
from inferd.storage.database import Database

_log = logging.getLogger("inferd.access")

Listener = Callable[[str | None], Awaitable[None]]


class Changes:
    """Tells the listeners of this process."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._listeners: dict[str, list[Listener]] = {}
        self._pass_on: Callable[[str, str], None] | None = None

    def listen(self, kind: Kind, listener: Listener) -> None:
        """Call `listener` with the id of each thing of the kind that changed."""
        self._listeners.setdefault(kind, []).append(listener)

    def pass_on(self, send: Callable[[str, str], None]) -> None:
        """Call `send` with the kind and the id of what was changed here."""
        self._pass_on = send

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[Change]:
        """A transaction whose changes are told once it is committed."""
        async with self._database.writing() as connection:
            change = Change(connection)
            yield change
            await changes.write(change, self._clock.unix_ns())
        for kind, subject in change.touched:
            if self._pass_on is not None:
                self._pass_on(kind, subject)
            await self.tell(kind, subject)

    async def publish(self, kind: Kind, subject: str) -> None:
        """Tell of a change that is committed already."""
        async with self.writing() as change:
            change.touch(kind, subject)

    async def tell(self, kind: str, subject: str | None) -> bool:
        """Call this process's listeners. False if one of them failed."""
        heard = True
        for listener in self._listeners.get(kind, ()):
            try:
                await listener(subject)
            except Exception:  # noqa: BLE001 one deaf listener must not silence the others
                _log.exception("a change of %s %s was not heard", kind, subject)
                heard = False
        return heard
