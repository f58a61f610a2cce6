"""Figures of the last minute, from the entries as they settle (deepinfra-api 7)."""

from __future__ import annotations

from collections import deque

import msgspec

from inferd.clock import Clock
from inferd.storage.rows import EntryRow

WINDOW_SECONDS = 60.0


class LiveFigures(msgspec.Struct, frozen=True):
    """Rates over the last minute; null where nothing was measured."""

    tokens_per_second: float | None
    """Output tokens."""
    time_to_first_token: float | None
    """Seconds, the mean of successful requests."""
    requests_per_second: float | None
    total_tflops: float | None = None
    """Not measured here."""


class _Second:
    """What settled within one second."""

    __slots__ = ("firsts", "firsts_seconds", "number", "requests", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.requests = self.tokens = self.firsts = 0
        self.firsts_seconds = 0.0


class Live:
    """Sees each settled entry; keeps one sum for each second, however many there are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: deque[_Second] = deque()

    def settled(self, entry: EntryRow) -> None:
        """Note one."""
        second = self._now()
        second.requests += 1
        second.tokens += entry.output_tokens
        if entry.first_event_ms is not None and entry.status == "succeeded":
            second.firsts += 1
            second.firsts_seconds += entry.first_event_ms / 1000

    def figures(self) -> LiveFigures:
        """What the last minute says."""
        self._now()
        firsts = sum(one.firsts for one in self._seconds)
        waited = sum(one.firsts_seconds for one in self._seconds)
        tokens = sum(one.tokens for one in self._seconds)
        requests = sum(one.requests for one in self._seconds)
        return LiveFigures(
            tokens_per_second=round(tokens / WINDOW_SECONDS, 3),
            time_to_first_token=round(waited / firsts, 4) if firsts else None,
            requests_per_second=round(requests / WINDOW_SECONDS, 3),
        )

    def _now(self) -> _Second:
        """The running second; those of more than a minute ago are forgotten."""
        number = int(self._clock.seconds())
        while self._seconds and self._seconds[0].number <= number - WINDOW_SECONDS:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(_Second(number))
        return self._seconds[-1]
