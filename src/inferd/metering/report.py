"""Usage and cost in sums, from the roll-ups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from inferd.errors import BadRequest
from inferd.metering.periods import day_text, month_of_day
from inferd.storage import rollups
from inferd.storage.database import Database
from inferd.storage.rollups import Slice, UsageSum, View

Grouping = Literal["month", "day", "model", "token", "tag", "tier", "end_user", "account"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)

__all__ = ["GROUPINGS", "Grouping", "Report", "Slice", "UsageSum", "View", "usage_report"]


class Report(msgspec.Struct, frozen=True):
    """Sums by group, and their sum."""

    rows: Sequence[UsageSum]
    total: UsageSum
    """Of everything, also of rows that were over the limit."""
    truncated: bool
    """There are more rows: the cheaper ones."""


async def usage_report(database: Database, by: Grouping, part: Slice, limit: int) -> Report:
    """Sums of a slice. Rows are the dearest first, days and months in their order."""
    if by == "end_user" and (part.model is not None or part.tag is not None):
        raise BadRequest("End users are not summed by model or tag.", param="by")
    async with database.reading() as connection:
        if by == "end_user":
            total = await rollups.total(connection, part)
            found = await rollups.end_users(connection, part, limit + 1)
        else:
            found = await rollups.sums(connection, "day" if by == "month" else by, part)
            total = _total(found)
    if by == "end_user" and len(found) <= limit:
        found += _unnamed(found, total)
    if by == "day":
        found = [_renamed(row, day_text(int(row.key))) for row in found]
    elif by == "month":
        found = _months(found)
    return Report(found[:limit], total, len(found) > limit)


def _total(rows: Sequence[UsageSum]) -> UsageSum:
    total = UsageSum("", *[0] * (len(UsageSum.__struct_fields__) - 1))
    for row in rows:
        total = _plus(total, row, 1)
    return total


def _renamed(row: UsageSum, key: str) -> UsageSum:
    return msgspec.structs.replace(row, key=key)


def _months(days: Sequence[UsageSum]) -> list[UsageSum]:
    months: dict[str, UsageSum] = {}
    for day in days:
        key = str(month_of_day(int(day.key)))
        months[key] = _plus(months[key], day, 1) if key in months else _renamed(day, key)
    return list(months.values())


def _plus(one: UsageSum, other: UsageSum, sign: int) -> UsageSum:
    names = UsageSum.__struct_fields__[1:]
    return UsageSum(one.key, *(getattr(one, n) + sign * getattr(other, n) for n in names))


def _unnamed(rows: Sequence[UsageSum], total: UsageSum) -> list[UsageSum]:
    """What was used without naming an end user."""
    rest = total
    for row in rows:
        rest = _plus(rest, row, -1)
    return [rest] if rest.requests else []
