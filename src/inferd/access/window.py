"""What one limit counts: requests in flight, and what was admitted in the last 60 s. Pure.

A request and its tokens count from the moment it was admitted. The log is exact: never more than
the limit in any 60 s, wherever they begin. Admissions within one tick share an entry, which ends
60 s after the tick's end, so memory is bounded and nothing is forgotten early.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

WINDOW_NS = 60_000_000_000
TICK_NS = 5_000_000

Measure = Literal["concurrent requests", "requests per minute", "tokens per minute"]


class Bounds(NamedTuple):
    """What one counter may reach; None: anything."""

    concurrent_requests: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def has_rate(self) -> bool:
        """True if a log must be kept."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None


class Refusal(NamedTuple):
    """Which bound says no, and for how long at most; None: until a running request ends."""

    measure: Measure
    limit: int
    wait_ns: int | None


class Entry:
    """What one tick admitted."""

    __slots__ = ("requests", "tokens", "until_ns")

    def __init__(self, until_ns: int) -> None:
        self.until_ns = until_ns
        """When it is forgotten; 0 once it is."""
        self.requests = 0
        self.tokens = 0


class Counter:
    """The state behind one limit."""

    __slots__ = ("entries", "in_flight", "requests", "tokens")

    def __init__(self) -> None:
        self.in_flight = 0
        self.entries: deque[Entry] = deque()
        self.requests = 0
        """In all entries."""
        self.tokens = 0
        """In all entries."""

    @property
    def idle(self) -> bool:
        """True if there is nothing to remember."""
        return not self.in_flight and not self.entries

    def forget(self, now_ns: int) -> None:
        """Drop what is older than the window."""
        entries = self.entries
        while entries and entries[0].until_ns <= now_ns:
            old = entries.popleft()
            self.requests -= old.requests
            self.tokens -= old.tokens
            old.until_ns = 0

    def refusal(self, bounds: Bounds, tokens: int, now_ns: int) -> Refusal | None:
        """Why one more request of so many tokens may not enter now; the longest wait of all."""
        concurrent, requests, most = bounds
        if requests is None and most is None:
            if concurrent is not None and self.in_flight >= concurrent:
                return Refusal("concurrent requests", concurrent, None)
            return None
        self.forget(now_ns)
        found: Refusal | None = None
        if concurrent is not None and self.in_flight >= concurrent:
            found = Refusal("concurrent requests", concurrent, None)
        if requests is not None and self.requests >= requests:
            wait = self._wait(self.requests + 1 - requests, 0, now_ns)
            found = Refusal("requests per minute", requests, wait)
        if most is not None and self.tokens + tokens > most:
            wait = self._wait(0, self.tokens + tokens - most, now_ns)
            if found is None or wait > (found.wait_ns or 0):
                found = Refusal("tokens per minute", most, wait)
        return found

    def enter(self, tokens: int, now_ns: int, *, log: bool) -> Entry | None:
        """Count one more; the entry is where its tokens are corrected."""
        self.in_flight += 1
        return self._log(1, tokens, now_ns) if log else None

    def remember(self, requests: int, tokens: int, at_ns: int) -> None:
        """Log what was admitted before this counter was there; the oldest first."""
        self._log(requests, tokens, at_ns)

    def _log(self, requests: int, tokens: int, at_ns: int) -> Entry:
        until_ns = (at_ns // TICK_NS + 1) * TICK_NS + WINDOW_NS
        entries = self.entries
        if not entries or entries[-1].until_ns < until_ns:
            entries.append(Entry(until_ns))
        entry = entries[-1]
        self.add(entry, requests, tokens)
        return entry

    def add(self, entry: Entry, requests: int, tokens: int) -> None:
        """Correct an entry, unless it is forgotten already."""
        if entry.until_ns:
            entry.requests += requests
            entry.tokens += tokens
            self.requests += requests
            self.tokens += tokens

    def _wait(self, requests: int, tokens: int, now_ns: int) -> int:
        """Until so many requests and tokens are forgotten."""
        for entry in self.entries:
            requests -= entry.requests
            tokens -= entry.tokens
            if requests <= 0 and tokens <= 0:
                return entry.until_ns - now_ns
        return WINDOW_NS
