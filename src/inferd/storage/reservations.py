"""Reservations in the database: rows of a process that is dead are dropped when it starts again."""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables import reservations


async def clear(connection: AsyncConnection, gateway: str = "") -> int:
    """Drop those of a gateway that runs nothing yet, so whoever held them is dead; how many."""
    own = delete(reservations).where(reservations.c.gateway == gateway)
    return (await connection.execute(own)).rowcount
