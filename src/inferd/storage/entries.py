"""Settled requests in the database: read only here; the ledger's writer writes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rollups import View, seen
from inferd.storage.rows import EntryRow, EntryStatus
from inferd.storage.tables import accounts, entries

GROUP_NS = 100_000_000
"""Requests so near to each other are told together, as of the last one."""


async def costs(
    connection: AsyncConnection, view: View, request_ids: Sequence[str]
) -> dict[str, int]:
    """Request id → nano-dollars, of those that somebody may see."""
    query = select(entries.c.request_id, entries.c.cost_nanos)
    query = seen(query.where(entries.c.request_id.in_(request_ids)), entries, view)
    return {row[0]: row[1] for row in await connection.execute(query)}


class Admitted(NamedTuple):
    """Requests that one caller made of one model within GROUP_NS."""

    account_id: str
    token_id: str
    model: str
    requests: int
    tokens: int
    unix_ns: int
    """When the last of them was admitted."""


async def admitted_since(connection: AsyncConnection, unix_ns: int) -> Sequence[Admitted]:
    """What was admitted since then and is over, the oldest first. One look-up for each account."""
    e = entries.c
    query = (
        select(
            e.account_id,
            e.token_id,
            e.model,
            func.count(),
            func.sum(e.input_tokens + e.output_tokens),
            func.max(e.created_unix_ns).label("last"),
        )
        .where(e.account_id.in_(select(accounts.c.id)))
        # Settled after it was admitted: so each account's end of the index is enough.
        .where(e.settled_unix_ns >= unix_ns, e.created_unix_ns >= unix_ns)
        .group_by(e.account_id, e.token_id, e.model, e.created_unix_ns // GROUP_NS)
        .order_by("last")
    )
    rows = await connection.execute(query)
    return [Admitted(*row[:4], tokens=int(row[4]), unix_ns=row[5]) for row in rows]


async def succeeded(connection: AsyncConnection, request_ids: Sequence[str]) -> frozenset[str]:
    """Those of the requests that were booked with their answer."""
    query = select(entries.c.request_id).where(
        entries.c.request_id.in_(request_ids), entries.c.status == "succeeded"
    )
    return frozenset(row[0] for row in await connection.execute(query))


async def booked(connection: AsyncConnection, request_ids: Sequence[str]) -> dict[str, EntryStatus]:
    """How those of the requests ended that are booked."""
    query = select(entries.c.request_id, entries.c.status)
    query = query.where(entries.c.request_id.in_(request_ids))
    return {row[0]: row[1] for row in await connection.execute(query)}


async def every(connection: AsyncConnection) -> AsyncIterator[EntryRow]:
    """All entries, streamed: memory stays flat however many there are."""
    async with connection.stream(select(entries)) as rows:
        async for row in rows:
            yield EntryRow(*row)
