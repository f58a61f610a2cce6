"""The router as a gateway sees it that shares its replicas with others.

It asks the supervisor of this machine for a slot and then talks to the worker itself, so a token
takes no more hops than with one gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from itertools import count
from typing import Any

from inferd.catalog.card import ModelCard
from inferd.clock import Clock
from inferd.errors import Unavailable
from inferd.serving.cluster_wire import (
    Boot,
    Count,
    Counted,
    Granted,
    Hung,
    Loading,
    Look,
    Refused,
    Shown,
    SlotAsk,
    SlotBack,
    ToGateway,
    ToSupervisor,
    Waiting,
    refusal,
)
from inferd.serving.deployment import Ask
from inferd.serving.link import Link
from inferd.serving.model_server import ModelServerReplica
from inferd.serving.refusals import shutting_down
from inferd.serving.replica import Flight, ReplicaDied
from inferd.serving.router import ATTEMPTS, RouterSnapshot
from inferd.serving.wire import Port
from inferd.tasks.every import Event

LOOK_SECONDS_MAX = 3.0


class RemoteRouter:
    """Grants slots of the supervisor's router. `connect` first; `close` at the end."""

    def __init__(self, clock: Clock, on_lost: Callable[[], None]) -> None:
        """`on_lost`: the supervisor is gone, and with it every replica."""
        self.port = Port(ToGateway, self._on_message, self._on_lost)
        self.booted: asyncio.Future[Boot] = asyncio.get_running_loop().create_future()
        self.index: int | None = None
        self.others: dict[int, bytes] = {}
        """What the other gateways counted at the last look, by index."""
        self._clock = clock
        self._when_lost = on_lost
        self._memory_bytes = 0
        self._snapshot = RouterSnapshot((), 0, 0, 0)
        self._loading: dict[str, str] = {}
        self._asking: dict[str, tuple[asyncio.Future[Granted], Flight]] = {}
        self._running = 0
        self._quiet = asyncio.Event()
        self._draining = False
        self._lost = False
        self._links: dict[str, Link] = {}
        self._elsewhere: dict[str, ModelServerReplica] = {}
        self._numbers = count(1)
        self._looking: dict[int, asyncio.Future[Shown]] = {}
        self._count: Callable[[], bytes] = bytes

    def say(self, message: ToSupervisor) -> None:
        """Tell the supervisor; dropped if it is gone."""
        self.port.send(message)

    def count_with(self, count: Callable[[], bytes]) -> None:
        """What to answer when another gateway asks for this one's metrics."""
        self._count = count

    def fits(self, card: ModelCard) -> bool:
        """Alone, the model is not too large for the memory here, as far as its card tells."""
        return card.memory_bytes <= self._memory_bytes

    def loading(self, model: str) -> str | None:
        """How far the load is, in a sentence; None if none is under way."""
        return self._loading.get(model)

    def snapshot(self) -> RouterSnapshot:
        """What ran at the last `refresh`."""
        return self._snapshot

    async def refresh(self, *, metrics: bool = False) -> None:
        """Look at the router, and at what the other gateways count if `metrics`."""
        number = next(self._numbers)
        shown = self._looking[number] = asyncio.get_running_loop().create_future()
        self.say(Look(number, metrics))
        try:
            async with asyncio.timeout(LOOK_SECONDS_MAX):
                answer = await shown
        except TimeoutError:
            raise Unavailable("The supervisor does not answer.", retry_after_seconds=1) from None
        finally:
            del self._looking[number]
        self._snapshot, self.others = answer.router, answer.metrics

    async def run(self, ask: Ask, flight: Flight) -> AsyncGenerator[Event]:
        """Wait for a slot, compute, free it. The events are the replica's.

        Raises TooManyRequests (line full), Unavailable (deadline, cannot load, draining).
        """
        if self._draining or self._lost:
            raise shutting_down()
        self._running += 1
        touched = False
        try:
            for attempt in range(ATTEMPTS):
                granted = await self._granted(ask, flight)
                died = False
                flight.granted_seconds = self._clock.seconds()
                flight.stage, flight.replica_id = "prefill", granted.replica_id
                try:
                    async with aclosing(await self._reach(granted, ask, flight)) as events:
                        async for event in events:
                            touched = True
                            yield event
                except ReplicaDied:
                    died = True
                    # It was dead already when the request came; that costs this request nothing.
                    if touched or attempt + 1 == ATTEMPTS:
                        raise
                else:
                    return
                finally:
                    self.say(SlotBack(ask.request_id, died))
        finally:
            self._running -= 1
            if not self._running:
                self._quiet.set()

    async def drain(self, deadline_seconds: float) -> None:
        """Refuse what is new, let what runs and waits finish until the deadline."""
        self._draining = True
        self._quiet.clear()
        if self._running and not self._lost:
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline_seconds):
                    await self._quiet.wait()

    async def close(self) -> None:
        """Hang up everywhere."""
        self._draining = True
        for link in list(self._links.values()):
            link.port.close()
        for replica in self._elsewhere.values():
            await replica.stop()

    async def _granted(self, ask: Ask, flight: Flight) -> Granted:
        if self._lost:
            raise shutting_down()
        granted: asyncio.Future[Granted] = asyncio.get_running_loop().create_future()
        self._asking[ask.request_id] = granted, flight
        self.say(
            SlotAsk(
                request_id=ask.request_id,
                account_id=ask.account_id,
                model=ask.card.name,
                work=ask.work,
                slots=ask.slots,
                tier=ask.tier,
                fail_fast=ask.fail_fast,
            )
        )
        try:
            return await granted
        except asyncio.CancelledError:
            # It may be granted already and the news on its way here: that gives it back, too.
            self.say(SlotBack(ask.request_id))
            raise
        finally:
            del self._asking[ask.request_id]

    async def _reach(self, granted: Granted, ask: Ask, flight: Flight) -> AsyncGenerator[Event]:
        assert ask.request is not None, "a gateway computes what it asks for"
        if granted.address is None:
            replica = await self._elsewhere_for(ask.card)
            return replica.run(ask.request_id, ask.request, flight)
        link = self._links.get(granted.replica_id)
        if link is None:
            link = await self._connected(granted.replica_id, granted.address)
        return link.run(ask.request_id, ask.request, flight)

    async def _connected(self, replica_id: str, address: str) -> Link:
        link = Link(
            on_hung=lambda: self._hung(replica_id),
            on_lost=lambda: self._forget(replica_id, link),
        )
        try:
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: link.port, address)
        except OSError as error:
            raise ReplicaDied("The worker that was to serve this request ended.") from error
        known = self._links.get(replica_id)
        if known is not None:
            # Two requests came at once; the first connection is enough.
            link.port.close()
            return known
        if not link.lost:
            self._links[replica_id] = link
        return link

    def _forget(self, replica_id: str, link: Link) -> None:
        if self._links.get(replica_id) is link:
            del self._links[replica_id]

    def _hung(self, replica_id: str) -> None:
        self.say(Hung(replica_id))

    async def _elsewhere_for(self, card: ModelCard) -> ModelServerReplica:
        replica = self._elsewhere.get(card.name)
        if replica is None:
            replica = ModelServerReplica(card)
            await replica.start()
            replica = self._elsewhere.setdefault(card.name, replica)
        return replica

    def _on_message(self, message: ToGateway) -> None:
        match message:
            case Granted(request_id):
                if asking := self._asking.get(request_id):
                    _resolve(asking[0], message)
            case Refused(request_id):
                if (asking := self._asking.get(request_id)) and not asking[0].done():
                    asking[0].set_exception(refusal(message))
            case Waiting(request_id, stage):
                if asking := self._asking.get(request_id):
                    asking[1].stage = stage
            case _:
                self._heard(message)

    def _heard(self, message: ToGateway) -> None:
        match message:
            case Loading(sentences):
                self._loading = sentences
            case Count(number):
                self.say(Counted(number, self._count()))
            case Shown(number):
                if shown := self._looking.get(number):
                    _resolve(shown, message)
            case Boot():
                self.index, self._memory_bytes = message.index, message.memory_bytes
                self.booted.set_result(message)
            case _:
                raise AssertionError("the decoder lets nothing else through")

    def _on_lost(self) -> None:
        self._lost = True
        for granted, _ in self._asking.values():
            if not granted.done():
                granted.set_exception(shutting_down())
        if not self.booted.done():
            self.booted.cancel()
        self._when_lost()


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
