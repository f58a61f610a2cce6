"""News of what changed: rows in the transaction of the change itself, so that none is lost.

Other gateways read them; ids may become visible out of order, so whoever reads looks back a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables_limits import changes

Kind = Literal["account", "token", "session", "limits", "purse", "prices"]
KEPT_NS = 24 * 3600 * 1_000_000_000


class Change:
    """The transaction, and the ids of what is not what it was."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.touched: list[tuple[Kind, str]] = []

    def touch(self, kind: Kind, subject: str) -> None:
        """Say that this is not what it was; `subject` is its id."""
        self.touched.append((kind, subject))


class ChangeRow(NamedTuple):
    """One piece of news."""

    id: int
    kind: str
    subject: str


async def write(change: Change, now_unix_ns: int) -> None:
    """Add a row for each thing that was touched; forget those of yesterday."""
    if not change.touched:
        return
    await change.connection.execute(
        delete(changes).where(changes.c.created_unix_ns < now_unix_ns - KEPT_NS)
    )
    await change.connection.execute(
        insert(changes),
        [
            {"kind": kind, "subject": subject, "created_unix_ns": now_unix_ns}
            for kind, subject in change.touched
        ],
    )


async def last(connection: AsyncConnection) -> int:
    """The id of the newest row; 0 if there is none."""
    return (await connection.execute(select(func.max(changes.c.id)))).scalar() or 0


async def since(connection: AsyncConnection, floor: int) -> Sequence[ChangeRow]:
    """Rows after an id, the oldest first."""
    query = (
        select(changes.c.id, changes.c.kind, changes.c.subject)
        .where(changes.c.id > floor)
        .order_by(changes.c.id)
    )
    return [ChangeRow(*row) for row in await connection.execute(query)]
