"""Accounts in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rows import AccountRow
from inferd.storage.tables import accounts


async def add(connection: AsyncConnection, row: AccountRow) -> None:
    """Insert."""
    await connection.execute(
        insert(accounts).values(
            id=row.id,
            name=row.name,
            created_unix_ns=row.created_unix_ns,
            credit_nanos=row.credit_nanos,
        )
    )


async def by_name(connection: AsyncConnection, name: str) -> AccountRow | None:
    """The account of a name."""
    found = (await connection.execute(select(accounts).where(accounts.c.name == name))).first()
    return None if found is None else AccountRow(*found)


async def by_id(connection: AsyncConnection, account_id: str) -> AccountRow | None:
    """The account of an id."""
    query = select(accounts).where(accounts.c.id == account_id)
    found = (await connection.execute(query)).first()
    return None if found is None else AccountRow(*found)


async def every(connection: AsyncConnection) -> Sequence[AccountRow]:
    """All accounts."""
    return [AccountRow(*row) for row in await connection.execute(select(accounts))]


async def set_credit(connection: AsyncConnection, account_id: str, nanos: int | None) -> None:
    """Set the prepaid credit; None: no budget."""
    await connection.execute(
        update(accounts).where(accounts.c.id == account_id).values(credit_nanos=nanos)
    )
