"""Credit that an admin grants, and what is left of an account's budgets."""

from __future__ import annotations

import msgspec

from inferd import ids
from inferd.errors import Conflict, NotFound
from inferd.storage import accounts, purses
from inferd.storage.database import AsyncConnection, Database
from inferd.storage.ledger_statements import month_of
from inferd.storage.rows import GrantRow


class Budget(msgspec.Struct, frozen=True):
    """What an account may spend and has spent, as it is in the database."""

    credit_nanos: int | None
    """Prepaid in all; None: no prepaid budget."""
    spent_nanos: int
    """In all."""
    month_limit_nanos: int | None
    """The lower of what the account and the installation's admin allow."""
    month_spent_nanos: int
    own_month_limit_nanos: int | None
    admin_month_limit_nanos: int | None

    @property
    def balance_nanos(self) -> int | None:
        """What is left of the credit; None: no prepaid budget."""
        return None if self.credit_nanos is None else self.credit_nanos - self.spent_nanos


async def budget(database: Database, account_id: str, now_unix_ns: int) -> Budget:
    """An account's budgets."""
    keys = (f"credit:{account_id}", f"month:{account_id}:{month_of(now_unix_ns)}")
    async with database.reading() as connection:
        limits = await purses.limits(connection, account_id, "")
        spent = await purses.spent(connection, keys)
    return Budget(
        limits.credit_nanos,
        spent.get(keys[0], 0),
        limits.month_nanos,
        spent.get(keys[1], 0),
        limits.own_month_nanos,
        limits.admin_month_nanos,
    )


async def grant(connection: AsyncConnection, row: GrantRow) -> bool:
    """Give credit; False if this grant was made before. Raises NotFound, Conflict.

    The first grant makes an account prepaid. What it had spent until then was not prepaid: an
    opening grant covers it, so that the balance is what was granted. Both are in the transaction
    of the caller, see `Ledger.changing`.
    """
    account = await accounts.locked(connection, row.account_id)
    if account is None or account.deleted_unix_ns is not None:
        raise NotFound("No such account.")
    if not await purses.grant(connection, row):
        await _require_same(connection, row)
        return False
    if account.credit_nanos is None:
        await _open(connection, row)
    return True


async def _require_same(connection: AsyncConnection, row: GrantRow) -> None:
    """A repeated id is the same grant, or a mistake."""
    made = await purses.granted(connection, row.account_id)
    if not any(one.id == row.id and one.nanos == row.nanos for one in made):
        raise Conflict("Another grant has this id.", param="id")


async def _open(connection: AsyncConnection, first: GrantRow) -> None:
    """Cover what was spent before the first grant."""
    spent = await purses.spent_for_now(connection, f"credit:{first.account_id}")
    total = await purses.granted_nanos(connection, first.account_id)
    missing = spent + first.nanos - total
    if missing:
        opening = msgspec.structs.replace(
            first,
            id=ids.sortable("opening"),
            nanos=missing,
            note="Spent before it was prepaid.",
        )
        await purses.grant(connection, opening)
