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
    request: Request | None
    """None: another process computes it and needs a slot alone."""
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
        """Slots in use, spare ones included."""
        self.held: dict[str, int] = {}
        """Account → slots that it has in use."""
        self.ready_seconds = 0.0

    @property
    def slots(self) -> int:
        """Slots of a ready replica, else 0."""
        return 0 if self.facts is None else self.facts.slots

    def fits(self, ask: Ask) -> bool:
        """It could begin now. Spare slots are for accounts that have nothing running here."""
        if self.facts is None or self.state != "ready":
            return False
        spare = 0 if ask.account_id in self.held else self.facts.spare
        return self.in_flight + ask.slots <= self.facts.slots + spare

    def take(self, ask: Ask) -> None:
        """It begins."""
        self.in_flight += ask.slots
        self.held[ask.account_id] = self.held.get(ask.account_id, 0) + ask.slots

    def give_back(self, ask: Ask) -> None:
        """It has ended."""
        self.in_flight -= ask.slots
        self.held[ask.account_id] -= ask.slots
        if not self.held[ask.account_id]:
            del self.held[ask.account_id]


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

    def begins_at_once(self, ask: Ask) -> bool:
        """A slot is free, and nobody in line comes first."""
        residency = self.residency
        if residency is None or not residency.fits(ask):
            return False
        head = self.queue.head()
        if head is None:
            return True
        # Those in line whose accounts have something running wait for ordinary slots: who has
        # nothing running passes them, but nobody of his own kind.
        newcomer = ask.account_id not in residency.held
        return newcomer and self.queue.first(self._has_nothing_running) is None

    def next_waiter(self) -> Waiter | None:
        """Who in line may begin now."""
        residency, head = self.residency, self.queue.head()
        if residency is None or head is None:
            return None
        if not residency.fits(head.ask) and head.account_id in residency.held:
            head = self.queue.first(self._has_nothing_running)
        return head if head is not None and residency.fits(head.ask) else None

    def _has_nothing_running(self, account_id: str) -> bool:
        return self.residency is None or account_id not in self.residency.held

    def refuse_all(self, error: InferdError) -> None:
        """Tell everybody in line."""
        while (waiter := self.queue.pop()) is not None:
            if not waiter.granted.done():
                waiter.granted.set_exception(error)
