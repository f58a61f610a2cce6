"""Accounts in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.errors import Conflict
from inferd.storage.rows import AccountRow
from inferd.storage.tables import accounts


def _row(found: Row[Any]) -> AccountRow:
    return AccountRow(**{name: getattr(found, name) for name in AccountRow.__struct_fields__})


async def add(connection: AsyncConnection, row: AccountRow) -> None:
    """Insert. Raises Conflict if the name is taken."""
    try:
        await connection.execute(
            insert(accounts).values(
                id=row.id,
                name=row.name,
                created_unix_ns=row.created_unix_ns,
                credit_nanos=row.credit_nanos,
                kind=row.kind,
                profile=row.profile,
            )
        )
    except IntegrityError:
        raise _taken(row.name) from None


async def by_name(connection: AsyncConnection, name: str) -> AccountRow | None:
    """The account of a name."""
    found = (await connection.execute(select(accounts).where(accounts.c.name == name))).first()
    return None if found is None else _row(found)


async def by_id(connection: AsyncConnection, account_id: str) -> AccountRow | None:
    """The account of an id, deleted ones included."""
    query = select(accounts).where(accounts.c.id == account_id)
    found = (await connection.execute(query)).first()
    return None if found is None else _row(found)


async def locked(connection: AsyncConnection, account_id: str) -> AccountRow | None:
    """The same, and nobody else changes its members or itself until the transaction ends."""
    same = update(accounts).where(accounts.c.id == account_id).values(kind=accounts.c.kind)
    await connection.execute(same)
    return await by_id(connection, account_id)


async def every(connection: AsyncConnection) -> Sequence[AccountRow]:
    """All accounts that are not deleted, oldest first."""
    query = select(accounts).where(accounts.c.deleted_unix_ns.is_(None)).order_by(accounts.c.id)
    return [_row(row) for row in await connection.execute(query)]


async def set_credit(connection: AsyncConnection, account_id: str, nanos: int | None) -> None:
    """Set the prepaid credit; None: no budget."""
    await connection.execute(
        update(accounts).where(accounts.c.id == account_id).values(credit_nanos=nanos)
    )


async def describe(connection: AsyncConnection, account_id: str, name: str, profile: str) -> None:
    """Set name and profile. Raises Conflict if the name is taken."""
    change = update(accounts).where(accounts.c.id == account_id)
    try:
        await connection.execute(change.values(name=name, profile=profile))
    except IntegrityError:
        raise _taken(name) from None


async def suspend(connection: AsyncConnection, account_id: str, reason: str | None) -> bool:
    """Set the reason, or lift it with None; False if there is no such account."""
    change = update(accounts).where(
        accounts.c.id == account_id, accounts.c.deleted_unix_ns.is_(None)
    )
    return (await connection.execute(change.values(suspended=reason))).rowcount == 1


async def delete(connection: AsyncConnection, account_id: str, now_unix_ns: int) -> bool:
    """Mark deleted, forget what it says of itself, free its name; False if there is none."""
    change = update(accounts).where(
        accounts.c.id == account_id, accounts.c.deleted_unix_ns.is_(None)
    )
    values = {"deleted_unix_ns": now_unix_ns, "name": f"deleted {account_id}", "profile": "{}"}
    return (await connection.execute(change.values(values))).rowcount == 1


def _taken(name: str) -> Conflict:
    return Conflict(f"The name {name!r} is taken.", param="name")
