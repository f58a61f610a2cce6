"""Price versions in the database. A model's versions follow one another without a gap.

A version that was planned and never began is withdrawn: it ends when it would have begun. Nothing
is ever deleted, and what a version says never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.duties import lock
from inferd.storage.rows import PriceRow, PriceSource
from inferd.storage.tables import prices

Connection = AsyncConnection


class NewPrice(NamedTuple):
    """What a version says; the columns by their names."""

    input_rate: int
    cached_rate: int
    output_rate: int
    priority_millionths: int | None
    flex_millionths: int | None
    unit_rate: int
    unit: str | None
    discount_millionths: int
    payer_account_id: str | None


class Piece(NamedTuple):
    """A version to come, and from when to when."""

    terms: NewPrice
    from_unix_ns: int
    to_unix_ns: int | None


def terms(row: PriceRow) -> NewPrice:
    """What a stored version says."""
    return NewPrice(*(getattr(row, name) for name in NewPrice._fields))


async def alone(connection: AsyncConnection) -> None:
    """Wait until nobody else changes prices; holds until the transaction ends."""
    await lock(connection, "prices")


async def living(connection: AsyncConnection, now_unix_ns: int) -> Sequence[PriceRow]:
    """The versions that are valid now or planned, by model, oldest first."""
    query = (
        select(prices)
        .where(
            or_(
                prices.c.valid_to_unix_ns.is_(None),
                (prices.c.valid_to_unix_ns > now_unix_ns)
                & (prices.c.valid_to_unix_ns > prices.c.valid_from_unix_ns),
            )
        )
        .order_by(prices.c.model, prices.c.valid_from_unix_ns, prices.c.id)
    )
    return [PriceRow(*row) for row in await connection.execute(query)]


async def every(connection: AsyncConnection) -> Sequence[PriceRow]:
    """All versions."""
    return [PriceRow(*row) for row in await connection.execute(select(prices))]


async def by_ids(connection: AsyncConnection, ids: Sequence[int]) -> Sequence[PriceRow]:
    """The versions of some ids."""
    found: list[PriceRow] = []
    asked = sorted(set(ids))
    for start in range(0, len(asked), 500):
        query = select(prices).where(prices.c.id.in_(asked[start : start + 500]))
        found += [PriceRow(*row) for row in await connection.execute(query)]
    return found


async def of_model(connection: AsyncConnection, model: str) -> Sequence[PriceRow]:
    """All versions of a model, in the order in which they were set."""
    query = select(prices).where(prices.c.model == model).order_by(prices.c.id)
    return [PriceRow(*row) for row in await connection.execute(query)]


async def replace(
    connection: AsyncConnection,
    model: str,
    pieces: Sequence[Piece],
    source: PriceSource,
    now_unix_ns: int,
) -> None:
    """Let these follow one another in place of what was to be valid in their time."""
    start, end = pieces[0].from_unix_ns, pieces[-1].to_unix_ns
    await _make_room(connection, model, start, end)
    for piece in pieces:
        await connection.execute(
            insert(prices).values(
                model=model,
                valid_from_unix_ns=piece.from_unix_ns,
                valid_to_unix_ns=piece.to_unix_ns,
                source=source,
                set_unix_ns=now_unix_ns,
                **piece.terms._asdict(),
            )
        )


async def _make_room(
    connection: AsyncConnection, model: str, start_unix_ns: int, end_unix_ns: int | None
) -> None:
    begins, ends = prices.c.valid_from_unix_ns, prices.c.valid_to_unix_ns
    planned = update(prices).where(prices.c.model == model, begins >= start_unix_ns)
    if end_unix_ns is not None:
        planned = planned.where(begins < end_unix_ns)
    await connection.execute(planned.values(valid_to_unix_ns=begins))
    await connection.execute(
        update(prices)
        .where(prices.c.model == model, begins < start_unix_ns)
        .where(or_(ends.is_(None), ends > start_unix_ns))
        .values(valid_to_unix_ns=start_unix_ns)
    )
