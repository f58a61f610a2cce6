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


class Live:
    """Sees each settled entry."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int, float | None]] = deque()
        self._tokens = 0

    def settled(self, entry: EntryRow) -> None:
        """Note one."""
        first = entry.first_event_ms if entry.status == "succeeded" else None
        seconds = None if first is None else first / 1000
        self._seen.append((self._clock.seconds(), entry.output_tokens, seconds))
        self._tokens += entry.output_tokens
        self._forget()

    def figures(self) -> LiveFigures:
        """What the last minute says."""
        self._forget()
        firsts = [first for _, _, first in self._seen if first is not None]
        return LiveFigures(
            tokens_per_second=round(self._tokens / WINDOW_SECONDS, 3),
            time_to_first_token=round(sum(firsts) / len(firsts), 4) if firsts else None,
            requests_per_second=round(len(self._seen) / WINDOW_SECONDS, 3),
        )

    def _forget(self) -> None:
        past = self._clock.seconds() - WINDOW_SECONDS
        while self._seen and self._seen[0][0] <= past:
            self._tokens -= self._seen.popleft()[1]
