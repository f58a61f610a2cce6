"""Names of accounts: each once, however its letters are written."""

from __future__ import annotations

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.errors import Conflict
from inferd.storage.tables import accounts

_LOCK = 0x696E666E616D6531
"""Of PostgreSQL's advisory locks: one name is given at a time."""


async def require_once(connection: AsyncConnection, name: str, account_id: str) -> None:
    """Raise Conflict if another account is called so.

    Called after the account was written: then SQLite lets nobody else write, and on PostgreSQL who
    comes later sees what was committed.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    if not await is_free(connection, name, account_id):
        raise Conflict(f"The name {name!r} is taken.", param="name")


async def is_free(connection: AsyncConnection, name: str, account_id: str = "") -> bool:
    """True if no other account is called so. Names are ASCII: lower case is the same everywhere."""
    query = select(accounts.c.id).where(
        func.lower(accounts.c.name) == name.lower(), accounts.c.id != account_id
    )
    return (await connection.execute(query)).first() is None
