"""Credit that an admin grants, and what is left of an account's budgets."""

from __future__ import annotations

import msgspec

from inferd.metering.ledger import Ledger
from inferd.storage import purses
from inferd.storage.database import Database
from inferd.storage.ledger_statements import month_of
from inferd.storage.rows import GrantRow


class Budget(msgspec.Struct, frozen=True):
    """What an account may spend and has spent, as it is in the database."""

    credit_nanos: int | None
    """Prepaid in all; None: no prepaid budget."""
    spent_nanos: int
    """In all."""
    month_limit_nanos: int | None
    month_spent_nanos: int

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
        limits.account_month_nanos,
        spent.get(keys[1], 0),
    )


async def grant(ledger: Ledger, database: Database, row: GrantRow) -> bool:
    """Give credit; False if a grant of this id was made before. Raises NotFound.

    The first grant makes an account prepaid. What it had spent until then was not prepaid: an
    opening grant covers it, so that the balance is what was granted.
    """
    before = await budget(database, row.account_id, row.created_unix_ns)
    if before.credit_nanos is None and before.spent_nanos:
        opening = msgspec.structs.replace(
            row,
            id=f"opening-{row.account_id}",
            nanos=before.spent_nanos,
            note="Spent before it was prepaid.",
        )
        await ledger.grant(opening)
    return await ledger.grant(row)
