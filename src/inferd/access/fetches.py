"""How many URLs are fetched at once: for each account, and in all."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from inferd.errors import TooManyRequests, Unavailable

ACCOUNT_FETCHES_MAX = 8
ALL_FETCHES_MAX = 64


class Fetches:
    """Counts fetches that are running."""

    def __init__(self) -> None:
        self._by_account: dict[str, int] = {}

    @contextmanager
    def one(self, account_id: str) -> Generator[None]:
        """Count one as long as it runs. Raises TooManyRequests or Unavailable."""
        own = self._by_account.get(account_id, 0)
        if own >= ACCOUNT_FETCHES_MAX:
            raise TooManyRequests(
                f"Rate limited: {ACCOUNT_FETCHES_MAX} URLs of this account are being fetched.",
                retry_after_seconds=1,
            )
        if sum(self._by_account.values()) >= ALL_FETCHES_MAX:
            raise Unavailable("Too many URLs are being fetched.", retry_after_seconds=1)
        self._by_account[account_id] = own + 1
        try:
            yield
        finally:
            left = self._by_account.pop(account_id) - 1
            if left:
                self._by_account[account_id] = left
