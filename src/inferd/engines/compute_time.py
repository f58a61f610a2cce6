"""Seconds of computing as usage: what pictures are billed by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from inferd.clock import Clock, SystemClock
from inferd.errors import InferdError
from inferd.tasks.base import MICRO, Usage
from inferd.tasks.classification import COMPUTE_SECONDS_MAX

Item = TypeVar("Item")
Result = TypeVar("Result")

CLOCK: Clock = SystemClock()


def computed(seconds: float) -> Usage:
    """Usage of what took so long: at least a microsecond, at most what money was set aside for."""
    return Usage(quantity=max(1, round(min(seconds, COMPUTE_SECONDS_MAX) * MICRO)))


def measured(work: Callable[[Item], Result]) -> Callable[[Item], tuple[Result, float]]:
    """The same work, which also tells its seconds."""

    def timed(item: Item) -> tuple[Result, float]:
        before = CLOCK.seconds()
        result = work(item)
        return result, CLOCK.seconds() - before

    return timed


def shared(
    compute: Callable[[list[Item]], Sequence[Result | InferdError]],
) -> Callable[[list[Item]], list[tuple[Result, float] | InferdError]]:
    """The same batch, each result with its equal share of the seconds."""

    def timed(items: list[Item]) -> list[tuple[Result, float] | InferdError]:
        before = CLOCK.seconds()
        results = compute(items)
        share = (CLOCK.seconds() - before) / max(1, len(items))
        return [one if isinstance(one, InferdError) else (one, share) for one in results]

    return timed
