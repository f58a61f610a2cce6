"""The nightly check of the ledger: one gateway does it, all of them show what it found.

It is due once a night, at three o'clock UTC; a night that was missed is made up for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from inferd import ids
from inferd.clock import Clock
from inferd.errors import InferdError
from inferd.metering.ledger import Ledger
from inferd.metering.verify import Running, verify
from inferd.storage import duties, verifications
from inferd.storage.database import Database
from inferd.storage.verifications import VerificationRow

_log = logging.getLogger("inferd.metering")

DUTY = "verify"
HOUR = 3
LOOK_SECONDS = 300
"""How often a gateway looks whether it is due, and what another one has found."""
HELD_NS = 3600 * 1_000_000_000
"""A gateway that dies while it checks keeps the others waiting for so long."""
_HOUR_NS = 3600 * 1_000_000_000
_DAY_NS = 24 * _HOUR_NS


def due_since(now_unix_ns: int) -> int:
    """The last moment at which a check was due."""
    return (now_unix_ns - HOUR * _HOUR_NS) // _DAY_NS * _DAY_NS + HOUR * _HOUR_NS


class Nightly:
    """Owns a task in the running loop."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        clock: Clock,
        heard: Callable[[VerificationRow], None],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._heard = heard
        self._name = ledger.gateway or ids.sortable("gw")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from time to time, from LOOK_SECONDS on."""
        # Held here, cancelled and awaited in `close`.
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def close(self) -> None:
        """Stop; a check that runs is broken off and due again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def look(self) -> bool:
        """Check the ledger if that is due and nobody else does it; tell the last result."""
        now = self._clock.unix_ns()
        async with self._database.reading() as connection:
            done = await duties.done_unix_ns(connection, DUTY)
        mine = done < due_since(now) and await self._take(now)
        if mine:
            await self._check()
        async with self._database.reading() as connection:
            last = await verifications.latest(connection)
        if last is not None:
            self._heard(last)
        return mine

    async def _take(self, now_unix_ns: int) -> bool:
        async with self._database.writing() as connection:
            taken = await duties.take(connection, DUTY, self._name, now_unix_ns, HELD_NS)
            # Another gateway may have ended it between the look and the lock.
            done = await duties.done_unix_ns(connection, DUTY)
        return taken and done < due_since(now_unix_ns)

    async def _check(self) -> None:
        ledger = self._ledger
        running = Running(ledger.gateway, ledger.holding, self._clock.unix_ns())
        found = await verify(self._database, running)
        row = VerificationRow(
            id=ids.sortable("ver"),
            ended_unix_ns=self._clock.unix_ns(),
            entries=found.entries,
            differences=found.count,
            detail="\n".join(found.differences),
        )
        async with self._database.writing() as connection:
            await verifications.add(connection, row)
            await duties.done(connection, DUTY, row.ended_unix_ns)
        for difference in found.differences:
            _log.error("the ledger differs: %s", difference)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except InferdError as error:
                _log.warning("the ledger was not checked: %s", error)
            except Exception:  # noqa: BLE001 the outermost loop: it is due still, and tried again
                _log.exception("the ledger was not checked")
