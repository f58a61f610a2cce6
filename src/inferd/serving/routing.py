"""What a gateway needs of a router, whether it owns the replicas or shares them with others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol

from inferd.catalog.card import ModelCard
from inferd.serving.deployment import Ask
from inferd.serving.replica import Flight
from inferd.serving.snapshot import RouterSnapshot
from inferd.tasks.every import Event


class Routing(Protocol):
    """Grants slots and runs requests in them."""

    @property
    def index(self) -> int | None:
        """Which of this machine's gateways this is; None: the only one."""
        ...

    @property
    def others(self) -> Mapping[int, bytes]:
        """What the other gateways of this machine counted at the last `refresh`, by index."""
        ...

    def run(self, ask: Ask, flight: Flight) -> AsyncGenerator[Event]:
        """Wait for a slot, compute, free it. Raises TooManyRequests, Unavailable."""
        ...

    def fits(self, card: ModelCard) -> bool:
        """Alone, the model is not too large for the memory here, as far as its card tells."""
        ...

    def loading(self, model: str) -> str | None:
        """How far the load is, in a sentence; None if none is under way."""
        ...

    def snapshot(self) -> RouterSnapshot:
        """What runs, as of the last `refresh` at the earliest."""
        ...

    def count_with(self, count: Callable[[], bytes]) -> None:
        """How to count when another gateway shows the metrics of all."""
        ...

    async def refresh(self, *, metrics: bool = False) -> None:
        """Make the snapshot fresh, and `others` too if `metrics`. Raises Unavailable."""
        ...

    async def drain(self, deadline_seconds: float) -> None:
        """Refuse what is new, let what runs and waits finish until the deadline."""
        ...

    async def close(self) -> None:
        """Let go of every replica."""
        ...
