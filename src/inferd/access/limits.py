"""How much at once: concurrent requests of an account on a model."""

from __future__ import annotations

from inferd.errors import TooManyRequests

CONCURRENT_DEFAULT = 200
"""DeepInfra's limit for each model (deepinfra-api 14)."""


class Concurrency:
    """Counts requests in flight. What `enter` admits must `leave` once."""

    def __init__(self, limit: int = CONCURRENT_DEFAULT) -> None:
        self._limit = limit
        self._in_flight: dict[tuple[str, str], int] = {}

    def enter(self, account_id: str, model: str) -> None:
        """Count one more, or raise TooManyRequests; a refusal counts nothing."""
        key = (account_id, model)
        now = self._in_flight.get(key, 0)
        if now >= self._limit:
            raise TooManyRequests(
                f"Rate limited: {self._limit} concurrent requests to {model} are in flight.",
                retry_after_seconds=1,
            )
        self._in_flight[key] = now + 1

    def leave(self, account_id: str, model: str) -> None:
        """Count one less."""
        key = (account_id, model)
        left = self._in_flight[key] - 1
        if left:
            self._in_flight[key] = left
        else:
            del self._in_flight[key]

    def in_flight(self, account_id: str, model: str) -> int:
        """Requests counted now."""
        return self._in_flight.get((account_id, model), 0)
