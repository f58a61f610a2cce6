"""Budgets that several gateways share: each spends only what it has leased.

A gateway that runs short leases a part of what is free. If that is too little it recalls what the
others have and do not need, and only when all who live have answered it refuses. So the hot path
has no round trip, the sum is exact, and what is refused is refused rightly. The lease of a gateway
that died counts as spent until that gateway has started again and replayed its journal.

One purse has one round trip at a time; requests that arrive meanwhile share the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from inferd.errors import InferdError, Unavailable
from inferd.metering.payer import Payer
from inferd.metering.purses import Purse
from inferd.storage import leases, notices
from inferd.storage import purses as stored
from inferd.storage.database import Database

BEAT_SECONDS = 1.0
"""How often a gateway says that it lives and, if it hears nothing, looks for recalls."""
ANSWER_SECONDS_MAX = 2.0
"""How long the others have to answer a recall; then they count as dead."""
LOOK_SECONDS = 0.05
"""How often an asker looks whether all have answered, should it miss the notice."""

_log = logging.getLogger("inferd.metering")


@dataclass
class _Waiter:
    nanos: int
    answered: asyncio.Future[None]


@dataclass
class _Counter:
    """Where requests wait for more of one purse."""

    purse: Purse
    payer: Payer
    waiting: list[_Waiter] = field(default_factory=list[_Waiter])
    round: asyncio.Task[None] | None = None


class Leases:
    """The leases of this gateway. `start` once the journal is replayed; `close` gives all back."""

    def __init__(
        self, database: Database, gateway: str, purses: Callable[[], Mapping[str, Purse]]
    ) -> None:
        self.gateway = gateway
        self.epoch_unix_ns = 0
        """When this life of the gateway began, by the database's clock."""
        self.news = 0
        """Changes when a limit that is being read may be old news."""
        self._database = database
        self._purses = purses
        self._counters: dict[str, _Counter] = {}
        self._noticed: dict[str, asyncio.Event] = {}
        """Purse → whoever waits for the others' answers."""
        self._recalled = asyncio.Event()
        """Set when another gateway wants a part of a purse."""
        self._returning: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take back what the last life of this gateway had leased. Raises Unavailable."""
        async with self._database.writing() as connection:
            self.epoch_unix_ns = await leases.enter(connection, self.gateway)
        # Held by this object, cancelled in `close`.
        loop = asyncio.get_running_loop()
        listening = notices.listen(self._database.url, leases.CHANNEL, self._heard)
        self._tasks = [
            loop.create_task(work) for work in (listening, self._living(), self._answering())
        ]

    async def close(self) -> None:
        """Give back what is not spent."""
        rounds = [counter.round for counter in self._counters.values()]
        tasks = [task for task in (*self._tasks, self._returning, *rounds) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(InferdError):
            await self.give_back([key for key, one in self._purses().items() if one.allowed])

    async def refill(self, purse: Purse, payer: Payer, nanos: int) -> None:
        """Lease enough for a request of so much. Raises PaymentRequired, or Unavailable.

        Another request may be faster afterwards: look again, and come again.
        """
        counter = self._counters.get(purse.key)
        if counter is None:
            counter = self._counters[purse.key] = _Counter(purse, payer)
        waiter = _Waiter(nanos, asyncio.get_running_loop().create_future())
        counter.waiting.append(waiter)
        if counter.round is None:
            counter.round = asyncio.get_running_loop().create_task(self._rounds(counter))
        try:
            await waiter.answered
        finally:
            if waiter in counter.waiting:
                counter.waiting.remove(waiter)
            elif _is_promised(waiter):
                purse.promised -= nanos

    def give_back_soon(self, keys: list[str]) -> None:
        """Return what nobody needs, in the background; what comes meanwhile waits for next time."""
        if self._returning is None and keys:
            # Held by this object, cancelled in `close`.
            self._returning = asyncio.get_running_loop().create_task(self._give_back_quietly(keys))

    async def _give_back_quietly(self, keys: list[str]) -> None:
        try:
            await self.give_back(keys)
        except InferdError as error:
            _log.warning("leases could not be given back: %s", error)
        finally:
            self._returning = None

    async def give_back(self, keys: list[str]) -> None:
        """Return what nobody needs of these purses; of one without a lease, answer so."""
        for key in keys:
            purse = self._purses().get(key) or Purse(key, "credit", None, 0)
            async with purse.turn:
                nanos = max(0, purse.free - purse.promised)
                # First of all: nothing may reserve it from now on. Should the database not take
                # it back, it counts as leased until this gateway starts again.
                purse.allowed -= nanos
                async with self._database.writing() as connection:
                    await leases.give_back(connection, key, self.gateway, nanos)

    async def _rounds(self, counter: _Counter) -> None:
        batch: list[_Waiter] = []
        try:
            while counter.waiting:
                batch, counter.waiting = counter.waiting, []
                try:
                    await self._round(counter, batch)
                except InferdError as error:
                    _fail(batch, error)
        finally:
            # Whatever broke: nobody waits for ever, and the next one begins anew.
            del self._counters[counter.purse.key]
            broken = Unavailable("The budget cannot be read now.", retry_after_seconds=5)
            _fail([*batch, *counter.waiting], broken)

    async def _round(self, counter: _Counter, batch: list[_Waiter]) -> None:
        """Get what the batch needs, or all that there is; then answer each, in their order."""
        purse = counter.purse
        wanted = sum(waiter.nanos for waiter in batch) - purse.free + purse.promised
        if wanted > 0 and await self._take(counter, wanted) and await self._recall(purse.key):
            wanted = sum(waiter.nanos for waiter in batch) - purse.free + purse.promised
            if wanted > 0:
                await self._take(counter, wanted)
        room = purse.free - purse.promised
        for waiter in batch:
            if waiter.answered.done():
                continue
            if purse.limit is None or (waiter.nanos <= room and not purse.blocks):
                room -= waiter.nanos
                purse.promised += waiter.nanos
                waiter.answered.set_result(None)
            else:
                waiter.answered.set_exception(purse.refusal(waiter.nanos, room))

    async def _take(self, counter: _Counter, wanted: int) -> bool:
        """Lease; True if it is too little and another gateway has leased some."""
        purse, payer, news = counter.purse, counter.payer, self.news
        async with purse.turn:
            async with self._database.writing() as connection:
                await leases.require_own(connection, self.gateway, self.epoch_unix_ns)
                limits = await stored.limits(connection, payer.account_id, payer.token_id)
                limit = limits.of(purse.kind, payer.jwt_limit_nanos)
                taken = await leases.take(connection, purse.key, self.gateway, wanted, limit)
            purse.allowed += taken.nanos
        if news == self.news:
            purse.set_limit(limit)
        return limit is not None and taken.nanos < wanted and taken.elsewhere_nanos > 0

    async def _recall(self, key: str) -> bool:
        """Ask the others for what they do not need; True once they have answered."""
        noticed = self._noticed[key] = asyncio.Event()
        try:
            async with self._database.writing() as connection:
                if not await leases.recall(connection, key, self.gateway):
                    return False
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS_MAX):
                    while await self._unanswered(key):
                        noticed.clear()
                        with suppress(TimeoutError):
                            async with asyncio.timeout(LOOK_SECONDS):
                                await noticed.wait()
        finally:
            del self._noticed[key]
        return True

    async def _unanswered(self, key: str) -> bool:
        async with self._database.reading() as connection:
            return await leases.unanswered(connection, key, self.gateway)

    def _heard(self, notice: str) -> None:
        """Somebody wants a part of a purse, or gave back one."""
        key = notice.removeprefix(leases.RETURNED)
        if key != notice:
            if (noticed := self._noticed.get(key)) is not None:
                noticed.set()
        elif notice.removeprefix(leases.RECALLED) in self._purses():
            self._recalled.set()

    async def _answering(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._recalled.wait()
            self._recalled.clear()
            await self._answer()

    async def _answer(self) -> None:
        """Give back what others have recalled."""
        try:
            async with self._database.reading() as connection:
                keys = list(await leases.recalled(connection, self.gateway))
            await self.give_back(keys)
        except InferdError as error:
            _log.warning("a recall could not be answered: %s", error)
        except Exception:  # noqa: BLE001 the loop goes on: nobody waits for a gateway that is deaf
            _log.exception("a recall could not be answered")

    async def _living(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                async with self._database.writing() as connection:
                    await leases.beat(connection, self.gateway, self.epoch_unix_ns)
            except InferdError as error:
                _log.warning("the gateway's life could not be told: %s", error)
            except Exception:  # noqa: BLE001 the loop goes on: who is not seen counts as dead
                _log.exception("the gateway's life could not be told")


def _is_promised(waiter: _Waiter) -> bool:
    answered = waiter.answered
    return answered.done() and not answered.cancelled() and answered.exception() is None


def _fail(batch: list[_Waiter], error: InferdError) -> None:
    for waiter in batch:
        if not waiter.answered.done():
            waiter.answered.set_exception(error)
