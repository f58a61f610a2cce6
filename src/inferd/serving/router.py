"""The router: single owner of queues and replicas.

State changes happen in the event loop without an await in the middle; `scheduler` decides, this
module carries out.

    run ─ free slot? ─ yes ────────────────► replica.run ─► release ─► grant next
              └ no ─► line ─► (load, swap) ─► granted ┘
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import NamedTuple

from inferd.catalog.card import ModelCard
from inferd.clock import Clock
from inferd.errors import BadRequest, InferdError, TooManyRequests, Unavailable
from inferd.serving.deployment import Ask, Deployment, Residency, Waiter
from inferd.serving.memory import budget_bytes
from inferd.serving.refusals import shutting_down, too_large, too_late
from inferd.serving.replica import Flight, ReplicaDied, ReplicaFactory
from inferd.serving.router_options import RouterOptions
from inferd.serving.scheduler import Drain, Policy, Refuse, Start, Stop, plan
from inferd.serving.snapshot import ModelSnapshot, RouterSnapshot, model_snapshot
from inferd.tasks.every import Event

__all__ = ["Ask", "ModelSnapshot", "Router", "RouterOptions", "RouterSnapshot", "Slot"]

BACKOFF_SECONDS_MAX = 60.0
QUICK_RESTARTS = 3
"""Deaths in a row after which a replica is no longer restarted at once."""
FLEX_SECONDS_MAX = 600.0
"""How long a request of the tier flex may wait, at least (deepinfra-api 4.3)."""
ATTEMPTS = 3
"""Replicas that a request may find dead before it has been computed at all."""
STABLE_SECONDS = 10.0
"""A replica that lived so long is not in a crash loop."""


class Slot(NamedTuple):
    """Room for one request, granted."""

    deployment: Deployment
    residency: Residency
    ask: Ask


class Router:
    """Grants slots. Make it inside a running event loop's lifetime; `close` it at the end."""

    def __init__(
        self,
        factory: ReplicaFactory,
        clock: Clock,
        options: RouterOptions,
        memory_estimate: Callable[[ModelCard], int],
    ) -> None:
        self._factory = factory
        self._clock = clock
        self._options = options
        self._memory_estimate = memory_estimate
        self._policy = Policy(
            memory_bytes=options.memory_bytes or budget_bytes(),
            idle_seconds=options.idle_seconds,
            swap_wait_seconds=options.swap_wait_seconds,
        )
        self._deployments: dict[str, Deployment] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._quiet = asyncio.Event()
        self._loads = self._evictions = self._deaths = 0

    def fits(self, card: ModelCard) -> bool:
        """Alone, the model is not too large for the memory here, as far as its card tells."""
        return card.memory_bytes <= self._policy.memory_bytes

    async def run(self, ask: Ask, flight: Flight) -> AsyncGenerator[Event]:
        """Wait for a slot, compute, free it. The events are the replica's.

        Raises TooManyRequests (line full), Unavailable (deadline, cannot load, draining).
        """
        deployment = self._deployment(ask.card)
        touched = False
        for attempt in range(ATTEMPTS):
            residency = self._take(deployment, ask)
            if residency is None:
                residency = await self._wait(deployment, ask, flight)
            flight.granted_seconds = self._clock.seconds()
            flight.stage, flight.replica_id = "prefill", residency.id
            replica, request = residency.replica, ask.request
            assert request is not None, "only `acquire` asks for others"
            try:
                async with aclosing(replica.run(ask.request_id, request, flight)) as events:
                    async for event in events:
                        touched = True
                        yield event
            except ReplicaDied:
                # It was dead already when the request came; that costs this request nothing.
                if touched or attempt + 1 == ATTEMPTS:
                    raise
                # The news of its death may still be on its way here: do not take it again.
                self._died(deployment, residency)
            else:
                return
            finally:
                self._release(deployment, residency, ask)

    def take(self, ask: Ask) -> Slot | None:
        """A slot whose holder computes elsewhere; None if one must be waited for."""
        deployment = self._deployment(ask.card)
        residency = self._take(deployment, ask)
        return None if residency is None else Slot(deployment, residency, ask)

    async def acquire(self, ask: Ask, flight: Flight) -> Slot:
        """Wait for such a slot. Raises like `run`; `give_back` ends it."""
        deployment = self._deployment(ask.card)
        return Slot(deployment, await self._wait(deployment, ask, flight), ask)

    def give_back(self, slot: Slot, *, died: bool = False) -> None:
        """The slot is free again; `died`: its replica was found dead."""
        if died:
            self._died(slot.deployment, slot.residency)
        self._release(slot.deployment, slot.residency, slot.ask)

    def loading(self, model: str) -> str | None:
        """How far the load is, in a sentence; None if the model is ready or nobody asked for it."""
        deployment = self._deployments.get(model)
        if deployment is None or deployment.residency is None:
            return None
        residency = deployment.residency
        return residency.replica.progress() if residency.state == "loading" else None

    def snapshot(self) -> RouterSnapshot:
        """What runs now."""
        return RouterSnapshot(
            tuple(model_snapshot(deployment) for deployment in self._deployments.values()),
            self._loads,
            self._evictions,
            self._deaths,
        )

    @property
    def index(self) -> None:
        """The gateway is the only one here."""

    @property
    def others(self) -> dict[int, bytes]:
        """There are no other gateways here whose metrics could be shown."""
        return {}

    def count_with(self, count: Callable[[], bytes]) -> None:
        """Nobody will ask."""

    async def refresh(self, *, metrics: bool = False) -> None:
        """The snapshot is always fresh here, and nobody else counts."""

    async def drain(self, deadline_seconds: float) -> None:
        """Refuse what is new, let what runs and waits finish until the deadline."""
        self._draining = True
        self._quiet.clear()
        self._note_quiet()
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_seconds):
                await self._quiet.wait()

    async def close(self) -> None:
        """Refuse the line, stop every replica."""
        self._draining = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for deployment in self._deployments.values():
            deployment.refuse_all(shutting_down())
            if deployment.residency is not None:
                await deployment.residency.replica.stop()
                deployment.residency = None

    def tick(self) -> None:
        """Decide and act. The router calls it at each event and when time has passed."""
        now = self._clock.seconds()
        self._expire(now)
        views = [deployment.view() for deployment in self._deployments.values()]
        decided = plan(views, now, self._policy)
        for decision in decided.decisions:
            deployment = self._deployments[decision.model]
            match decision:
                case Start():
                    self._start(deployment)
                case Stop(evicted=evicted):
                    self._evictions += evicted
                    self._stop(deployment)
                case Drain():
                    if deployment.residency is not None:
                        deployment.residency.state = "draining"
                case Refuse(needed_bytes=needed):
                    deployment.refuse_all(
                        too_large(deployment.card, needed, self._policy.memory_bytes)
                    )
        self._wake_at(decided.wake_at_seconds, now)

    def _deployment(self, card: ModelCard) -> Deployment:
        deployment = self._deployments.get(card.name)
        if deployment is None:
            memory = self._memory_estimate(card)
            deployment = self._deployments[card.name] = Deployment(card, memory)
        return deployment

    def _take(self, deployment: Deployment, ask: Ask) -> Residency | None:
        """The fast path: a slot is free and nobody stands in line."""
        if self._draining:
            raise shutting_down()
        if ask.slots > deployment.card.slots:
            raise BadRequest(f"n is at most {deployment.card.slots} for this model.", param="n")
        residency = deployment.residency
        if residency is None or not deployment.begins_at_once(ask):
            return None
        residency.take(ask)
        return residency

    async def _wait(self, deployment: Deployment, ask: Ask, flight: Flight) -> Residency:
        if len(deployment.queue) >= self._options.queue_size_max:
            raise TooManyRequests(
                f"Model busy, retry later: {len(deployment.queue)} requests are waiting for "
                f"{ask.card.name}.",
                retry_after_seconds=1,
            )
        if ask.fail_fast:
            # Somebody wants it: have it ready for the next one.
            deployment.wanted = deployment.residency is None
            self.tick()
            raise TooManyRequests(
                f"Model busy, retry later: {ask.card.name} has no room at once.",
                retry_after_seconds=1,
            )
        now = self._clock.seconds()
        if deployment.load_failures and deployment.retry_at_seconds > now:
            raise Unavailable(
                f"The model {ask.card.name} failed to load and is tried again soon.",
                retry_after_seconds=deployment.retry_at_seconds - now,
            )
        patience = self._options.queue_seconds_max
        if ask.tier == "flex":
            patience = max(patience, FLEX_SECONDS_MAX)
        waiter = Waiter(ask, flight, now, now + patience)
        ready = deployment.residency is not None and deployment.residency.state == "ready"
        flight.stage = "queued" if ready else "loading"
        deployment.queue.push(waiter)
        self.tick()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            self._abandon(deployment, waiter)
            raise

    def _abandon(self, deployment: Deployment, waiter: Waiter) -> None:
        """The client left the line, or just as it was called."""
        granted = waiter.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            self._release(deployment, granted.result(), waiter.ask)
        elif deployment.queue.remove(waiter):
            self._note_quiet()

    def _grant(self, deployment: Deployment) -> None:
        residency = deployment.residency
        while residency is not None and (waiter := deployment.next_waiter()) is not None:
            deployment.queue.take(waiter)
            if not waiter.granted.done():
                residency.take(waiter.ask)
                waiter.granted.set_result(residency)

    def _release(self, deployment: Deployment, residency: Residency, ask: Ask) -> None:
        residency.give_back(ask)
        deployment.idle_since_seconds = self._clock.seconds()
        if deployment.residency is residency:
            self._grant(deployment)
            if not residency.in_flight or residency.state == "draining":
                self.tick()
        self._note_quiet()

    def _start(self, deployment: Deployment) -> None:
        deployment.wanted = False
        replica = self._factory(deployment.card)
        residency = Residency(replica, deployment.memory_bytes)
        deployment.residency = residency
        self._own(self._load(deployment, residency))

    async def _load(self, deployment: Deployment, residency: Residency) -> None:
        try:
            facts = await residency.replica.start()
        except InferdError as error:
            await residency.replica.stop()
            if deployment.residency is residency and residency.state == "loading":
                self._load_failed(deployment, error)
            return
        if deployment.residency is not residency or residency.state != "loading":
            return
        self._loads += 1
        deployment.load_failures = 0
        residency.facts, residency.state = facts, "ready"
        residency.ready_seconds = deployment.idle_since_seconds = self._clock.seconds()
        if facts.memory_bytes:
            # What a card says is a floor: caches may still grow into it.
            known = max(facts.memory_bytes, deployment.card.memory_bytes)
            residency.memory_bytes = deployment.memory_bytes = known
        residency.replica.died.add_done_callback(lambda _: self._died(deployment, residency))
        for waiter in deployment.queue.items():
            waiter.flight.stage = "queued"
        self._grant(deployment)
        self.tick()

    def _load_failed(self, deployment: Deployment, error: InferdError) -> None:
        deployment.residency = None
        deployment.load_failures += 1
        self._back_off(deployment, deployment.load_failures)
        deployment.refuse_all(
            Unavailable(
                f"The model {deployment.card.name} cannot be loaded: {error.message}",
                retry_after_seconds=deployment.retry_at_seconds - self._clock.seconds(),
                detail=error.detail,
            )
        )
        self.tick()
        self._note_quiet()

    def _back_off(self, deployment: Deployment, times: int) -> None:
        wait = min(BACKOFF_SECONDS_MAX, 2.0 ** (times - 1)) if times > 0 else 0.0
        deployment.retry_at_seconds = self._clock.seconds() + wait

    def _died(self, deployment: Deployment, residency: Residency) -> None:
        if deployment.residency is not residency or residency.state == "stopping":
            return
        self._deaths += 1
        deployment.residency = None
        now = self._clock.seconds()
        short = now - residency.ready_seconds < STABLE_SECONDS
        deployment.deaths = deployment.deaths + 1 if short else 1
        self._back_off(deployment, deployment.deaths - QUICK_RESTARTS)
        idle = self._options.idle_seconds
        deployment.wanted = idle < 0 or now - deployment.idle_since_seconds < idle
        self._own(residency.replica.stop())
        self.tick()

    def _stop(self, deployment: Deployment) -> None:
        residency = deployment.residency
        if residency is not None and residency.state != "stopping":
            residency.state = "stopping"
            self._own(self._unload(deployment, residency))

    async def _unload(self, deployment: Deployment, residency: Residency) -> None:
        await residency.replica.stop()
        if deployment.residency is residency:
            deployment.residency = None
        self.tick()

    def _expire(self, now: float) -> None:
        for deployment in self._deployments.values():
            for waiter in deployment.queue.items():
                if waiter.deadline_seconds <= now and deployment.queue.remove(waiter):
                    waiter.granted.set_exception(self._too_late(deployment, waiter))

    def _too_late(self, deployment: Deployment, waiter: Waiter) -> InferdError:
        progress = self.loading(deployment.card.name)
        seconds_max = self._options.queue_seconds_max
        return too_late(deployment.card, waiter.ask.tier, seconds_max, progress)

    def _wake_at(self, planned: float | None, now: float) -> None:
        deadlines = [
            waiter.deadline_seconds
            for deployment in self._deployments.values()
            for waiter in deployment.queue.items()
        ]
        times = deadlines if planned is None else [planned, *deadlines]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if times and not (self._draining and not self._tasks and not deadlines):
            delay = max(0.001, min(times) - now)
            self._timer = asyncio.get_running_loop().call_later(delay, self.tick)

    def _note_quiet(self) -> None:
        busy = any(
            len(deployment.queue) or (deployment.residency and deployment.residency.in_flight)
            for deployment in self._deployments.values()
        )
        if not busy:
            self._quiet.set()

    def _own(self, work: Coroutine[None, None, None]) -> None:
        # Held by the router, cancelled and awaited in `close`.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
