"""The router's sentences for who gets no slot."""

from __future__ import annotations

from inferd.catalog.card import ModelCard
from inferd.errors import InferdError, TooManyRequests, Unavailable
from inferd.tasks.base import Tier


def shutting_down() -> Unavailable:
    """The server ends."""
    return Unavailable("The server is shutting down.", retry_after_seconds=5)


def too_large(card: ModelCard, needed_bytes: int, memory_bytes: int) -> Unavailable:
    """The model fits never."""
    return Unavailable(
        f"The model {card.name} needs about {needed_bytes >> 20} MiB of memory; "
        f"{memory_bytes >> 20} MiB are set aside for models."
    )


def too_late(card: ModelCard, tier: Tier, seconds_max: float, progress: str | None) -> InferdError:
    """The request has waited as long as it may; `progress` of the load, if that is why."""
    if tier == "flex" and progress is None:
        return TooManyRequests(
            f"No capacity for the tier flex of {card.name}.", retry_after_seconds=60
        )
    reason = f"it is still loading ({progress})" if progress else "no slot became free"
    return Unavailable(
        f"The model {card.name} could not serve within {seconds_max:g} s: {reason}.",
        retry_after_seconds=10,
    )
