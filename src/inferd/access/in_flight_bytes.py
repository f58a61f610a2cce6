"""How many bytes of request bodies may lie in memory at once: for each account, and in all."""

from __future__ import annotations

from inferd.errors import TooManyRequests, Unavailable

ACCOUNT_BYTES_MAX = 64 * 1024 * 1024
ALL_BYTES_MAX = 256 * 1024 * 1024


class InFlightBytes:
    """Counts bytes of bodies that are arriving or being decoded."""

    def __init__(self, account_max: int = ACCOUNT_BYTES_MAX, all_max: int = ALL_BYTES_MAX) -> None:
        self._account_max = account_max
        self._all_max = all_max
        self._by_account: dict[str, int] = {}
        self._all = 0

    def hold(self, account_id: str) -> Holding:
        """A count for one body; `release` it in a `finally`."""
        return Holding(self, account_id)

    def add(self, account_id: str, size: int) -> None:
        """Count more. Raises TooManyRequests or Unavailable; then nothing is counted."""
        own = self._by_account.get(account_id, 0) + size
        if own > self._account_max:
            raise TooManyRequests(
                f"Rate limited: more than {self._account_max} bytes of this account's requests "
                "are arriving at once.",
                retry_after_seconds=1,
            )
        if self._all + size > self._all_max:
            raise Unavailable("Too many large requests are arriving.", retry_after_seconds=1)
        self._by_account[account_id] = own
        self._all += size

    def remove(self, account_id: str, size: int) -> None:
        """Count less."""
        left = self._by_account[account_id] - size
        if left:
            self._by_account[account_id] = left
        else:
            del self._by_account[account_id]
        self._all -= size

    @property
    def total(self) -> int:
        """Bytes counted now."""
        return self._all


class Holding:
    """The bytes of one body."""

    def __init__(self, counter: InFlightBytes, account_id: str) -> None:
        self._counter = counter
        self._account_id = account_id
        self._held = 0

    def grow_to(self, size: int) -> None:
        """The body has so many bytes now."""
        if size > self._held:
            self._counter.add(self._account_id, size - self._held)
            self._held = size

    def release(self) -> None:
        """The body is decoded or given up."""
        if self._held:
            self._counter.remove(self._account_id, self._held)
            self._held = 0
