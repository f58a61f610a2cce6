"""One model in the router: its line of waiting requests and the replica that serves it."""

from __future__ import annotations

import asyncio

import msgspec

from inferd import ids
from inferd.catalog.card import ModelCard
from inferd.engines.base import Request
from inferd.errors import InferdError
from inferd.serving.fair_queue import TieredQueue
from inferd.serving.replica import Flight, Replica, ReplicaFacts
from inferd.serving.scheduler import ModelView, State
from inferd.tasks.base import Tier


class Ask(msgspec.Struct, frozen=True):
    """What the router is asked for."""

    request_id: str
    account_id: str
    card: ModelCard
    request: Request
    work: int
    """Estimated tokens, for fairness."""
    slots: int = 1
    """How many choices it computes at once."""
    tier: Tier = "default"
    fail_fast: bool = False
    """Be turned away rather than stand in line."""


class Residency:
    """One replica's time in memory, from the start of its load to its end."""

    def __init__(self, replica: Replica, memory_bytes: int) -> None:
        self.id = ids.sortable("rep")
        self.replica = replica
        self.memory_bytes = memory_bytes
        self.state: State = "loading"
        self.facts: ReplicaFacts | None = None
        self.in_flight = 0
        """Slots in use."""
        self.ready_seconds = 0.0

    @property
    def slots(self) -> int:
        """Slots of a ready replica, else 0."""
        return 0 if self.facts is None else self.facts.slots


class Waiter:
    """A request in line."""

    def __init__(self, ask: Ask, flight: Flight, now: float, deadline_seconds: float) -> None:
        self.ask = ask
        self.flight = flight
        self.account_id = ask.account_id
        self.work = ask.work
        self.tier: Tier = ask.tier
        self.enqueued_seconds = now
        self.deadline_seconds = deadline_seconds
        self.granted: asyncio.Future[Residency] = asyncio.get_running_loop().create_future()


class Deployment:
    """All that the router knows of one model."""

    def __init__(self, card: ModelCard, memory_bytes: int) -> None:
        self.card = card
        self.queue: TieredQueue[Waiter] = TieredQueue()
        self.residency: Residency | None = None
        self.memory_bytes = memory_bytes
        """Estimated; measured once it was loaded."""
        self.load_failures = 0
        """Loads in a row that failed; nobody is kept waiting for the next try."""
        self.deaths = 0
        """Short lives in a row that ended by themselves; requests wait for the next one."""
        self.retry_at_seconds = 0.0
        self.idle_since_seconds = 0.0
        self.wanted = False

    def view(self) -> ModelView:
        """For the scheduler."""
        residency = self.residency
        oldest = min((w.enqueued_seconds for w in self.queue.items()), default=0.0)
        return ModelView(
            model=self.card.name,
            state="cold" if residency is None else residency.state,
            memory_bytes=self.memory_bytes if residency is None else residency.memory_bytes,
            in_flight=0 if residency is None else residency.in_flight,
            queued=len(self.queue),
            oldest_seconds=oldest,
            idle_since_seconds=self.idle_since_seconds,
            retry_at_seconds=self.retry_at_seconds,
            wanted=self.wanted,
        )

    def free_slots(self) -> int:
        """Slots that may be granted now."""
        residency = self.residency
        if residency is None or residency.state != "ready":
            return 0
        return residency.slots - residency.in_flight

    def refuse_all(self, error: InferdError) -> None:
        """Tell everybody in line."""
        while (waiter := self.queue.pop()) is not None:
            if not waiter.granted.done():
                waiter.granted.set_exception(error)
