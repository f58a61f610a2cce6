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


async def clear(connection: AsyncConnection) -> None:
    """Drop all: nothing runs yet, so whoever held them is dead."""
    await connection.execute(delete(reservations))
