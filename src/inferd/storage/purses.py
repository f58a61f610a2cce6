"""Budgets in the database: their limits, what is spent of them, credit that was granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from sqlalchemy import Table, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rows import GrantRow
from inferd.storage.tables import accounts, tokens
from inferd.storage.tables_budgets import grants, purses

Kind = Literal["credit", "month", "token", "jwt"]
"""What a purse is for: its key begins with it."""


class Limits(msgspec.Struct, frozen=True):
    """What an account and one of its tokens may spend; None: no limit."""

    credit_nanos: int | None = None
    own_month_nanos: int | None = None
    """What the account allows itself."""
    token_month_nanos: int | None = None
    admin_month_nanos: int | None = None
    """What the installation's admin allows the account."""

    @property
    def month_nanos(self) -> int | None:
        """The lower of both limits of the account's month."""
        both = (self.own_month_nanos, self.admin_month_nanos)
        return min((one for one in both if one is not None), default=None)

    def of(self, kind: Kind, jwt_limit_nanos: int | None) -> int | None:
        """The limit of a kind of purse."""
        found = {
            "credit": self.credit_nanos,
            "month": self.month_nanos,
            "token": self.token_month_nanos,
            "jwt": jwt_limit_nanos,
        }
        return found[kind]


async def limits(connection: AsyncConnection, account_id: str, token_id: str) -> Limits:
    """Of an account and a token. What does not exist has no limit."""
    token = select(tokens.c.monthly_limit_nanos).where(tokens.c.id == token_id).scalar_subquery()
    a = accounts.c
    columns = (a.credit_nanos, a.monthly_limit_nanos, token, a.admin_monthly_limit_nanos)
    query = select(*columns).where(a.id == account_id)
    found = (await connection.execute(query)).first()
    return Limits() if found is None else Limits(*found)


async def spent(connection: AsyncConnection, keys: Sequence[str]) -> dict[str, int]:
    """Purse → nano-dollars of all its entries; a purse that is not there has spent nothing."""
    query = select(purses.c.key, purses.c.spent_nanos).where(purses.c.key.in_(keys))
    return {row[0]: row[1] for row in await connection.execute(query)}


async def spent_for_now(connection: AsyncConnection, key: str) -> int:
    """The same of one purse, to which nothing is booked until the transaction ends."""
    # SQLite has one writer, and that is this transaction from its first change on.
    await _insert_if_new(connection, purses, "key", {"key": key, "spent_nanos": 0})
    query = select(purses.c.spent_nanos).where(purses.c.key == key).with_for_update()
    return int((await connection.execute(query)).scalar_one())


async def grant(connection: AsyncConnection, row: GrantRow) -> bool:
    """Add to the account's credit, which becomes a budget; False if the grant's id was used."""
    if not await _insert_if_new(connection, grants, "id", msgspec.structs.asdict(row)):
        return False
    credit = await granted_nanos(connection, row.account_id)
    await connection.execute(
        update(accounts).where(accounts.c.id == row.account_id).values(credit_nanos=credit)
    )
    return True


async def granted_nanos(connection: AsyncConnection, account_id: str) -> int:
    """The sum of an account's grants, which nobody else changes until the transaction ends."""
    await connection.execute(
        select(accounts.c.id).where(accounts.c.id == account_id).with_for_update()
    )
    total = select(func.sum(grants.c.nanos)).where(grants.c.account_id == account_id)
    # A sum of big integers is a decimal in PostgreSQL.
    return int((await connection.execute(total)).scalar() or 0)


async def granted(connection: AsyncConnection, account_id: str) -> Sequence[GrantRow]:
    """All grants of an account, oldest first."""
    query = (
        select(grants)
        .where(grants.c.account_id == account_id)
        .order_by(grants.c.created_unix_ns, grants.c.id)
    )
    return [GrantRow(*row) for row in await connection.execute(query)]


async def set_monthly_limit(
    connection: AsyncConnection, account_id: str, nanos: int | None, *, by_admin: bool = False
) -> bool:
    """The account's own, or the one that the installation's admin sets; None: no limit.

    False if there is no such account.
    """
    column = accounts.c.admin_monthly_limit_nanos if by_admin else accounts.c.monthly_limit_nanos
    change = update(accounts).where(
        accounts.c.id == account_id, accounts.c.deleted_unix_ns.is_(None)
    )
    return (await connection.execute(change.values({column: nanos}))).rowcount == 1


async def set_token_monthly_limit(
    connection: AsyncConnection, account_id: str, token_id: str, nanos: int | None
) -> bool:
    """Of a live token of the account; None: no limit. False if there is no such token."""
    change = update(tokens).where(
        tokens.c.id == token_id,
        tokens.c.account_id == account_id,
        tokens.c.revoked_unix_ns.is_(None),
    )
    return (await connection.execute(change.values(monthly_limit_nanos=nanos))).rowcount == 1


async def _insert_if_new(
    connection: AsyncConnection, table: Table, key: str, values: Mapping[str, object]
) -> bool:
    """False if there is a row of this key."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert = dialect.insert(table).values(**values).on_conflict_do_nothing(index_elements=[key])
    return (await connection.execute(insert)).rowcount == 1
