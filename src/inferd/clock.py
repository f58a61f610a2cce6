"""Time, in one place, so that tests can turn it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time."""

    def unix_ns(self) -> int:
        """Wall time: nanoseconds since 1970, UTC."""
        ...

    def seconds(self) -> float:
        """Monotonic seconds, for durations and deadlines."""
        ...


class SystemClock:
    """The machine's clocks."""

    def unix_ns(self) -> int:
        """Wall time: nanoseconds since 1970, UTC."""
        return time.time_ns()

    def seconds(self) -> float:
        """Monotonic seconds, for durations and deadlines."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is turned."""

    def __init__(self, start_unix_ns: int = 1_800_000_000_000_000_000) -> None:
        self._start_unix_ns = start_unix_ns
        self._elapsed = 0.0

    def unix_ns(self) -> int:
        """Wall time: nanoseconds since 1970, UTC."""
        return self._start_unix_ns + round(self._elapsed * 1e9)

    def seconds(self) -> float:
        """Monotonic seconds, for durations and deadlines."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Turn the clock forward."""
        self._elapsed += seconds
