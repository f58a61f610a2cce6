"""Another machine's time, between two bounds: it was read after we asked and before we heard."""

from __future__ import annotations

KEPT_NS = 30_000_000_000
"""A narrow reading is better than a newer one for so long; clocks drift."""


class ServerClock:
    """Both bounds, from answers that carry the server's time."""

    def __init__(self, offset_ns: int) -> None:
        self._low = self._high = offset_ns
        self._width = 1 << 62
        self._read_ns = 0

    def read(self, sent_ns: int, heard_ns: int, from_ns: int, to_ns: int) -> None:
        """The server's time was between `from_ns` and `to_ns` between sending and hearing."""
        low, high = from_ns - heard_ns, to_ns - sent_ns
        disagrees = low > self._high or high < self._low
        old = heard_ns > self._read_ns + KEPT_NS
        if high - low <= self._width or disagrees or old:
            self._low, self._high = low, high
            self._width, self._read_ns = high - low, heard_ns

    def earliest(self, now_ns: int) -> int:
        """It is at least so late there."""
        return now_ns + self._low

    def latest(self, now_ns: int) -> int:
        """It is at most so late there."""
        return now_ns + self._high
