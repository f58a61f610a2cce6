"""The ledger checks itself: every cost is recomputed from its usage and its price version."""

from __future__ import annotations

import msgspec

from inferd.metering.cost import cost
from inferd.metering.prices import Price, price_of
from inferd.storage import entries, prices
from inferd.storage.database import Database
from inferd.storage.rows import EntryRow
from inferd.tasks.base import Usage

DIFFERENCES_SHOWN = 100


class Verification(msgspec.Struct, frozen=True):
    """What was found."""

    entries: int
    """Entries looked at."""
    total_nanos: int
    """Their sum, as recomputed."""
    differences: tuple[str, ...]
    """One sentence each, at most DIFFERENCES_SHOWN; empty when all is right."""


async def verify(database: Database) -> Verification:
    """Recompute everything. Memory stays flat."""
    differences: list[str] = []
    count = total = 0
    async with database.reading() as connection:
        versions = {row.id: price_of(row) for row in await prices.every(connection)}
        async for entry in entries.every(connection):
            count += 1
            problem, nanos = _check(entry, versions)
            total += nanos
            if problem is not None and len(differences) < DIFFERENCES_SHOWN:
                differences.append(f"{entry.request_id}: {problem}")
    if (database.directory / "ledger.refused").exists():
        differences.append("ledger.refused holds writes that the database did not take.")
    return Verification(count, total, tuple(differences))


def _check(entry: EntryRow, versions: dict[int, Price]) -> tuple[str | None, int]:
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
