"""Price versions in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rows import PriceRow
from inferd.storage.tables import prices


async def current(connection: AsyncConnection) -> Sequence[PriceRow]:
    """The versions that are valid now, one for each model."""
    query = select(prices).where(prices.c.valid_to_unix_ns.is_(None))
    return [PriceRow(*row) for row in await connection.execute(query)]


async def every(connection: AsyncConnection) -> Sequence[PriceRow]:
    """All versions."""
    return [PriceRow(*row) for row in await connection.execute(select(prices))]


async def replace(
    connection: AsyncConnection, model: str, rates: tuple[int, int, int], now_unix_ns: int
) -> PriceRow:
    """End the model's current version and begin a new one."""
    await connection.execute(
        update(prices)
        .where(prices.c.model == model, prices.c.valid_to_unix_ns.is_(None))
        .values(valid_to_unix_ns=now_unix_ns)
    )
    fresh, cached, output = rates
    result = await connection.execute(
        insert(prices)
        .values(
            model=model,
            input_rate=fresh,
            cached_rate=cached,
            output_rate=output,
            valid_from_unix_ns=now_unix_ns,
        )
        .returning(prices.c.id)
    )
    return PriceRow(result.scalar_one(), model, fresh, cached, output, now_unix_ns)
