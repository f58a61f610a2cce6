"""Facts of the installation that all its gateways share, by name."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables import metadata

installation = Table(
    "installation",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

_FIRST = text(
    # An update that changes nothing, so that a value which was there is returned.
    "INSERT INTO installation (name, value) VALUES (:name, :value) "
    "ON CONFLICT (name) DO UPDATE SET value = installation.value RETURNING value"
)
_REPLACE = text(
    "INSERT INTO installation (name, value) VALUES (:name, :value) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


async def first(connection: AsyncConnection, name: str, value: str) -> str:
    """The fact; `value` if nobody has said one before."""
    return str((await connection.execute(_FIRST, {"name": name, "value": value})).scalar_one())


async def replace(connection: AsyncConnection, name: str, value: str) -> None:
    """Say it anew."""
    await connection.execute(_REPLACE, {"name": name, "value": value})
