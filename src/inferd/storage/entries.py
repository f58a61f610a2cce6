"""Settled requests in the database: read only here; the ledger's writer writes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rollups import View, seen
from inferd.storage.rows import EntryRow
from inferd.storage.tables import entries


async def costs(
    connection: AsyncConnection, view: View, request_ids: Sequence[str]
) -> dict[str, int]:
    """Request id → nano-dollars, of those that somebody may see."""
    query = select(entries.c.request_id, entries.c.cost_nanos)
    query = seen(query.where(entries.c.request_id.in_(request_ids)), entries, view)
    return {row[0]: row[1] for row in await connection.execute(query)}


async def succeeded(connection: AsyncConnection, request_ids: Sequence[str]) -> frozenset[str]:
    """Those of the requests that were booked with their answer."""
    query = select(entries.c.request_id).where(
        entries.c.request_id.in_(request_ids), entries.c.status == "succeeded"
    )
    return frozenset(row[0] for row in await connection.execute(query))


async def every(connection: AsyncConnection) -> AsyncIterator[EntryRow]:
    """All entries, streamed: memory stays flat however many there are."""
    async with connection.stream(select(entries)) as rows:
        async for row in rows:
            yield EntryRow(*row)
