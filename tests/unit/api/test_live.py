"""Figures of the last minute."""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.api.live import Live
from inferd.storage.rows import EntryRow


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.5

    def seconds(self) -> float:
        return self.now

    def unix_ns(self) -> int:
        return 0


def entry(tokens: int, first_ms: int | None = 100, status: str = "succeeded") -> EntryRow:
    fields: dict[str, Any] = {
        field.name: 0 if field.type is int else ""
        for field in msgspec.structs.fields(EntryRow)
        if field.required
    }
    fields |= {"output_tokens": tokens, "first_event_ms": first_ms, "status": status}
    return EntryRow(**fields)


def test_rates_are_those_of_the_last_minute() -> None:
    clock = Hand()
    live = Live(clock)
    assert live.figures().requests_per_second == 0
    assert live.figures().time_to_first_token is None
    for first_ms in (100, 300):
        live.settled(entry(30, first_ms))
    live.settled(entry(60, 9000, "cancelled"))
    clock.now += 59
    figures = live.figures()
    assert figures.tokens_per_second == 2
    assert figures.time_to_first_token == 0.2
    assert figures.requests_per_second == 0.05
    clock.now += 2
    assert live.figures().tokens_per_second == 0
    assert live.figures().time_to_first_token is None


def test_what_it_keeps_does_not_grow_with_the_load() -> None:
    clock = Hand()
    live = Live(clock)
    for _ in range(300):
        clock.now += 1
        for _ in range(20):
            live.settled(entry(1))
    assert len(live._seconds) <= 61  # pyright: ignore[reportPrivateUsage] the guarantee itself
    assert live.figures().requests_per_second == 20
