"""Price versions in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rows import PriceRow
from inferd.storage.tables import prices


class NewPrice(NamedTuple):
    """What a version says; the columns by their names."""

    input_rate: int
    cached_rate: int
    output_rate: int
    priority_millionths: int | None
    flex_millionths: int | None
    unit_rate: int


def terms(row: PriceRow) -> NewPrice:
    """What a stored version says."""
    return NewPrice(*(getattr(row, name) for name in NewPrice._fields))


async def current(connection: AsyncConnection) -> Sequence[PriceRow]:
    """The versions that are valid now, one for each model."""
    query = select(prices).where(prices.c.valid_to_unix_ns.is_(None))
    return [PriceRow(*row) for row in await connection.execute(query)]


async def every(connection: AsyncConnection) -> Sequence[PriceRow]:
    """All versions."""
    return [PriceRow(*row) for row in await connection.execute(select(prices))]


async def replace(
    connection: AsyncConnection, model: str, new: NewPrice, now_unix_ns: int
) -> PriceRow:
    """End the model's current version and begin a new one."""
    await connection.execute(
        update(prices)
        .where(prices.c.model == model, prices.c.valid_to_unix_ns.is_(None))
        .values(valid_to_unix_ns=now_unix_ns)
    )
    result = await connection.execute(
        insert(prices)
        .values(
            model=model,
            valid_from_unix_ns=now_unix_ns,
            **new._asdict(),
        )
        .returning(prices.c.id)
    )
    return PriceRow(
        id=result.scalar_one(), model=model, valid_from_unix_ns=now_unix_ns, **new._asdict()
    )
