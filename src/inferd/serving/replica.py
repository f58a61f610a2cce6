"""The protocol of a replica: one running copy of a model, wherever it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Literal, Protocol

import msgspec

from inferd.catalog.card import ModelCard
from inferd.engines.base import Request
from inferd.errors import EngineFailed
from inferd.tasks.base import NOTHING, Usage
from inferd.tasks.every import Event


class ReplicaFacts(msgspec.Struct, frozen=True):
    """What is known once a replica is ready."""

    slots: int
    context_length: int
    memory_bytes: int
    """Measured resident bytes; 0 when it runs elsewhere."""
    pid: int | None = None
    spare: int = 0
    """Further slots, for accounts that have nothing running here."""


Stage = Literal["queued", "loading", "prefill", "decode", "done"]


class Flight:
    """One request on its way: where it is and what it has consumed. Whoever sees more writes it."""

    __slots__ = ("granted_seconds", "replica_id", "stage", "usage")

    def __init__(self) -> None:
        self.stage: Stage = "queued"
        self.usage: Usage = NOTHING
        """The last usage that the engine reported, also while it was being cancelled."""
        self.replica_id: str | None = None
        self.granted_seconds: float | None = None
        """Clock.seconds() when a slot was granted."""


class ReplicaDied(EngineFailed):
    """The replica ended unexpectedly while it had the request."""


class Replica(Protocol):
    """One running copy. The router is its only user."""

    @property
    def died(self) -> asyncio.Future[str]:
        """Resolves with a reason when the replica ends without having been asked to."""
        ...

    async def start(self) -> ReplicaFacts:
        """Fetch files if needed, load, warm up. Raises EngineFailed or Unavailable. Cancellable."""
        ...

    def run(self, request_id: str, request: Request, flight: Flight) -> AsyncGenerator[Event]:
        """Compute, keeping `flight.usage` and `flight.stage` true.

        Closing the generator cancels: when `aclose` returns the slot is free and `flight.usage`
        is final. Never yields `Stopped`.
        """
        ...

    async def stop(self) -> None:
        """End it; all memory is back when this returns. Safe to call twice and at any time."""
        ...

    def progress(self) -> str:
        """One sentence on how far `start` is ("Fetching … 41 %"), for a person who waits."""
        ...


ReplicaFactory = Callable[[ModelCard], Replica]
"""Makes a replica of a card; does nothing yet."""
