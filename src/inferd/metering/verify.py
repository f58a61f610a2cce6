"""The ledger checks itself.

Every cost is recomputed from its usage and its price version; purses, roll-ups and grants are
summed again; money that is set aside belongs to requests that run; nothing belongs to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import msgspec

from inferd.metering.cost import cost
from inferd.metering.prices import Price, price_of
from inferd.storage import checks, prices
from inferd.storage.checks import Billed
from inferd.storage.database import Database
from inferd.tasks.base import Usage

DIFFERENCES_SHOWN = 100
SETTLING_SECONDS = 60
"""A reservation that is younger may belong to a request that has just ended."""


class Running(msgspec.Struct, frozen=True):
    """What a gateway computes now."""

    gateway: str
    request_ids: Collection[str]
    now_unix_ns: int


class Verification(msgspec.Struct, frozen=True):
    """What was found."""

    entries: int
    """Entries looked at."""
    total_nanos: int
    """Their sum, as recomputed."""
    count: int
    """Differences; of one kind of sum at most `checks.SHOWN_MAX` are counted."""
    differences: tuple[str, ...]
    """One sentence each, at most DIFFERENCES_SHOWN; empty when all is right."""


async def verify(database: Database, running: Running | None = None) -> Verification:
    """Recompute everything, as it is at this moment. Memory stays flat, nobody else waits."""
    async with checks.snapshot(database) as connection:
        versions = {row.id: price_of(row) for row in await prices.every(connection)}
        entries = total = wrong = 0
        differences: list[str] = []
        async for part in checks.billed(connection):
            for entry in part:
                problem, nanos = _check(entry, versions)
                total += nanos
                if problem is not None:
                    wrong += 1
                    differences.append(f"{entry.request_id}: {problem}")
            entries += len(part)
            del differences[DIFFERENCES_SHOWN:]
            await asyncio.sleep(0)
        sums = await checks.every(connection)
        if running is not None:
            sums += await _nobody_runs(connection, running)
    if (database.directory / "ledger.refused").exists():
        sums.append("ledger.refused holds writes that the database did not take.")
    shown = (*differences, *sums)[:DIFFERENCES_SHOWN]
    return Verification(entries, total, wrong + len(sums), shown)


async def _nobody_runs(connection: checks.Connection, running: Running) -> list[str]:
    before = running.now_unix_ns - SETTLING_SECONDS * 1_000_000_000
    held = await checks.held(connection, running.gateway, before)
    return [
        f"Money is set aside for {request_id}, which does not run."
        for request_id in held
        if request_id not in running.request_ids
    ][: checks.SHOWN_MAX]


def _check(entry: Billed, versions: dict[int, Price]) -> tuple[str | None, int]:
    price = versions.get(entry.price_id)
    if price is None:
        return f"its price version {entry.price_id} does not exist.", 0
    if price.model != entry.model:
        return f"its price version is one of {price.model}, not of {entry.model}.", 0
    usage = Usage(
        entry.input_tokens, entry.cached_tokens, entry.output_tokens, quantity=entry.quantity
    )
    try:
        nanos = cost(usage, price, entry.tier)
    except ValueError as error:
        return f"{error}", 0
    if nanos != entry.cost_nanos:
        return f"booked {entry.cost_nanos} nano-dollars, the price makes it {nanos}.", nanos
    return None, nanos
