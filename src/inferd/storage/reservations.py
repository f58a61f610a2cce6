"""Reservations in the database: only the rows of a dead process are ever read."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rows import ReservationRow
from inferd.storage.tables import reservations


async def every(connection: AsyncConnection) -> Sequence[ReservationRow]:
    """All reservations."""
    return [ReservationRow(*row) for row in await connection.execute(select(reservations))]


async def clear(connection: AsyncConnection, gateway: str = "") -> int:
    """Drop those of a gateway that runs nothing yet, so whoever held them is dead; how many."""
    own = delete(reservations).where(reservations.c.gateway == gateway)
    return (await connection.execute(own)).rowcount
