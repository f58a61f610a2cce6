"""The supervisor's end of its gateways: grants them slots of the one router.

Queue and replicas stay in one place, so they are as fair as with one gateway. What a gateway
held when its connection ends is released at once; the worker hears of it over its own connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import msgspec

from inferd.catalog.catalog import Catalog
from inferd.errors import InferdError
from inferd.serving.cluster_wire import (
    Broken,
    Count,
    Counted,
    Granted,
    Hung,
    Loading,
    Look,
    Shown,
    SlotAsk,
    SlotBack,
    ToSupervisor,
    Up,
    Waiting,
    refused,
)
from inferd.serving.deployment import Ask
from inferd.serving.local import LocalReplica
from inferd.serving.replica import Flight, Stage
from inferd.serving.router import Router, Slot
from inferd.serving.snapshot import GatewaySnapshot, RouterSnapshot
from inferd.serving.wire import Port

COUNT_SECONDS_MAX = 2.0
"""A gateway that has not said its figures by then is left out of them."""
PROGRESS_SECONDS = 0.5
"""How often waiting gateways hear how far a load is."""


class SlotServer:
    """Serves every gateway of this machine."""

    def __init__(self, router: Router, catalog: Catalog) -> None:
        self.router = router
        self.catalog = catalog
        self.desks: dict[int, Desk] = {}
        """By the gateway's index."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: dict[str, str] = {}

    def open(self, index: int, pid: int) -> Desk:
        """A desk for a gateway that starts. Its port is for a connection to that gateway."""
        desk = self.desks[index] = Desk(self, index, pid)
        return desk

    def own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run it; held here until it is done, cancelled and awaited by `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def tell_progress(self) -> None:
        """Tell the gateways how far loads are, for as long as it runs."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            models = [model.model for model in self.router.snapshot().models]
            told = {model: said for model in models if (said := self.router.loading(model))}
            if told != self._told:
                self._told = told
                for desk in self.desks.values():
                    desk.port.send(Loading(told))

    async def counted(self, by: int) -> dict[int, bytes]:
        """What the other gateways count."""
        others = {i: desk for i, desk in self.desks.items() if i != by and desk.up is not None}
        counts = {index: desk.count() for index, desk in others.items()}
        if counts:
            await asyncio.wait(counts.values(), timeout=COUNT_SECONDS_MAX)
        return {i: c.result() for i, c in counts.items() if c.done() and not c.cancelled()}

    def snapshot(self) -> RouterSnapshot:
        """The router's, with the gateways that are up."""
        up = [
            GatewaySnapshot(index, desk.pid, desk.holds)
            for index, desk in sorted(self.desks.items())
            if desk.up is not None
        ]
        return msgspec.structs.replace(self.router.snapshot(), gateways=tuple(up))

    async def close(self) -> None:
        """Cancel what waits."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _nobody(_: Stage) -> None:
    """Nobody needs to hear where a flight begins."""


class _TellingFlight(Flight):
    """A flight whose gateway hears where it stands."""

    __slots__ = ("_stage", "tell")

    def __init__(self, tell: Callable[[Stage], None]) -> None:
        self.tell: Callable[[Stage], None] = _nobody
        super().__init__()
        self.tell = tell

    @property
    def stage(self) -> Stage:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stage

    @stage.setter
    def stage(self, stage: Stage) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._stage: Stage = stage
        self.tell(stage)


class Desk:
    """One gateway's connection, and what it waits for and holds."""

    def __init__(self, server: SlotServer, index: int, pid: int) -> None:
        self.pid = pid
        self.port = Port(ToSupervisor, self._on_message, self._on_lost)
        self.up: Up | None = None
        """What the gateway said when it began to take connections."""
        self.began = asyncio.Event()
        """It is up, broken or gone."""
        self.broken: str | None = None
        """Why it cannot start."""
        self._server = server
        self._index = index
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, Slot] = {}
        self._counts: dict[int, asyncio.Future[bytes]] = {}

    @property
    def holds(self) -> int:
        """Requests that have a slot or wait for one."""
        return len(self._held) + len(self._asking)

    def count(self) -> asyncio.Future[bytes]:
        """Ask the gateway for its figures."""
        number = max(self._counts, default=0) + 1
        told = self._counts[number] = asyncio.get_running_loop().create_future()
        told.add_done_callback(lambda _: self._counts.pop(number, None))
        self.port.send(Count(number))
        return told

    def _on_message(self, message: ToSupervisor) -> None:
        match message:
            case SlotAsk():
                self._asked(message)
            case SlotBack(request_id, replica_died):
                self._take_back(request_id, died=replica_died)
            case Hung(replica_id):
                self._kill(replica_id)
            case Look():
                self._server.own(self._show(message))
            case Counted(number, text):
                self._has_counted(number, text)
            case Up() | Broken():
                self._has_begun(message)

    def _has_begun(self, message: Up | Broken) -> None:
        if isinstance(message, Up):
            self.up = message
        else:
            self.broken = message.sentence
        self.began.set()

    def _has_counted(self, number: int, text: bytes) -> None:
        if (told := self._counts.get(number)) and not told.done():
            told.set_result(text)

    def _asked(self, message: SlotAsk) -> None:
        try:
            ask = Ask(
                request_id=message.request_id,
                account_id=message.account_id,
                card=self._server.catalog.get(message.model),
                request=None,
                work=message.work,
                slots=message.slots,
                tier=message.tier,
                fail_fast=message.fail_fast,
            )
            slot = self._server.router.take(ask)
        except InferdError as error:
            self.port.send(refused(message.request_id, error))
            return
        if slot is not None:
            self._granted(slot)
            return
        asking = self._asking[ask.request_id] = self._server.own(self._wait(ask))
        asking.add_done_callback(lambda _: self._asking.pop(ask.request_id, None))

    async def _wait(self, ask: Ask) -> None:
        request_id = ask.request_id
        flight = _TellingFlight(lambda stage: self.port.send(Waiting(request_id, stage)))
        try:
            slot = await self._server.router.acquire(ask, flight)
        except InferdError as error:
            self.port.send(refused(request_id, error))
        else:
            # From here on `_take_back` finds it; nothing is awaited in between.
            self._granted(slot)

    def _granted(self, slot: Slot) -> None:
        request_id = slot.ask.request_id
        self._held[request_id] = slot
        replica = slot.residency.replica
        address = replica.address if isinstance(replica, LocalReplica) else None
        self.port.send(Granted(request_id, slot.residency.id, address))

    def _take_back(self, request_id: str, *, died: bool = False) -> None:
        if slot := self._held.pop(request_id, None):
            self._server.router.give_back(slot, died=died)
        elif asking := self._asking.get(request_id):
            asking.cancel()

    def _kill(self, replica_id: str) -> None:
        for slot in self._held.values():
            replica = slot.residency.replica
            if slot.residency.id == replica_id and isinstance(replica, LocalReplica):
                replica.kill()
                return

    async def _show(self, message: Look) -> None:
        metrics = await self._server.counted(self._index) if message.metrics else {}
        self.port.send(Shown(message.number, self._server.snapshot(), metrics))

    def _on_lost(self) -> None:
        """The gateway is gone: whatever it asked for or held is free."""
        self.began.set()
        for asking in self._asking.values():
            asking.cancel()
        for request_id in list(self._held):
            self._take_back(request_id)
        for told in list(self._counts.values()):
            told.cancel()
        if self._server.desks.get(self._index) is self:
            del self._server.desks[self._index]
