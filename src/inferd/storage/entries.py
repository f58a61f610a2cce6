"""Settled requests in the database: read only here; the ledger's writer writes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

import msgspec
from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rows import EntryRow
from inferd.storage.tables import entries

Grouping = Literal["model", "token", "day", "month", "end_user"]


class UsageSum(msgspec.Struct, frozen=True):
    """Sums over one group."""

    key: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nanos: int
    input_seconds: int
    """This and what follows: millionths."""
    input_characters: int
    image_units: int
    output_seconds: int
    compute_seconds: int


_UNITS = UsageSum.__struct_fields__[6:]


def _quantity(unit: str) -> ColumnElement[int]:
    return func.sum(case((entries.c.unit == unit, entries.c.quantity), else_=0))


def _key(by: Grouping) -> ColumnElement[str]:
    seconds = entries.c.settled_unix_ns / 1_000_000_000
    keys: dict[Grouping, ColumnElement[str]] = {
        "model": entries.c.model,
        "token": entries.c.token_id,
        "day": func.strftime("%Y-%m-%d", seconds, "unixepoch"),
        "month": func.strftime("%Y-%m", seconds, "unixepoch"),
        "end_user": func.coalesce(entries.c.end_user, ""),
    }
    return keys[by]


async def sums(
    connection: AsyncConnection, account_id: str | None, by: Grouping, span_unix_ns: tuple[int, int]
) -> Sequence[UsageSum]:
    """Sums over [from, to), one for each group; of all accounts if `account_id` is None."""
    key = _key(by)
    query = (
        select(
            key,
            func.count(),
            func.sum(entries.c.input_tokens),
            func.sum(entries.c.cached_tokens),
            func.sum(entries.c.output_tokens),
            func.sum(entries.c.cost_nanos),
            *(_quantity(unit) for unit in _UNITS),
        )
        .where(entries.c.settled_unix_ns >= span_unix_ns[0])
        .where(entries.c.settled_unix_ns < span_unix_ns[1])
        .group_by(key)
        .order_by(key)
    )
    if account_id is not None:
        query = query.where(entries.c.account_id == account_id)
    return [UsageSum(*row) for row in await connection.execute(query)]


async def costs(
    connection: AsyncConnection, account_id: str, request_ids: Sequence[str]
) -> dict[str, int]:
    """Request id → nano-dollars, of those that belong to the account."""
    query = select(entries.c.request_id, entries.c.cost_nanos).where(
        entries.c.request_id.in_(request_ids), entries.c.account_id == account_id
    )
    return {row[0]: row[1] for row in await connection.execute(query)}


async def spent_by_account(connection: AsyncConnection) -> dict[str, int]:
    """Account → nano-dollars of all its entries."""
    query = select(entries.c.account_id, func.sum(entries.c.cost_nanos)).group_by(
        entries.c.account_id
    )
    return {row[0]: row[1] for row in await connection.execute(query)}


async def every(connection: AsyncConnection) -> AsyncIterator[EntryRow]:
    """All entries, streamed: memory stays flat however many there are."""
    async with connection.stream(select(entries)) as rows:
        async for row in rows:
            yield EntryRow(*row)
