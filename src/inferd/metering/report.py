"""Usage and cost in sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from inferd.storage import entries
from inferd.storage.database import Database
from inferd.storage.entries import Grouping, UsageSum

GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)

__all__ = ["GROUPINGS", "Grouping", "UsageSum", "usage_by"]


async def usage_by(
    database: Database, account_id: str | None, by: Grouping, span_unix_ns: tuple[int, int]
) -> Sequence[UsageSum]:
    """Sums over [from, to) by group, in UTC; of all accounts if `account_id` is None."""
    async with database.reading() as connection:
        return await entries.sums(connection, account_id, by, span_unix_ns)
