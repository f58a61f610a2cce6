"""Who did what, in the database: append-only."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables_operation import audit

Connection = AsyncConnection
"""What rooms that speak no SQL call the transaction that they pass on."""


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One action of somebody who manages."""

    id: str
    at_unix_ns: int
    account_id: str
    token_id: str
    token_name: str
    person_id: str | None
    address: str
    """Where the request came from; "" for this machine's command line."""
    request_id: str
    action: str
    """Noun and verb, such as token.revoke."""
    target: str
    """The id of what was changed."""
    detail: str
    """A JSON object without secrets."""


async def add(connection: AsyncConnection, row: AuditRow) -> None:
    """Insert."""
    await connection.execute(insert(audit).values(**msgspec.structs.asdict(row)))


async def page(
    connection: AsyncConnection,
    *,
    before: str | None,
    count_max: int,
    account_id: str | None = None,
    action: str | None = None,
) -> Sequence[AuditRow]:
    """The newest rows first; `before` is the last id of the page before."""
    query = select(audit).order_by(audit.c.id.desc()).limit(count_max)
    if before is not None:
        query = query.where(audit.c.id < before)
    if account_id is not None:
        query = query.where(audit.c.account_id == account_id)
    if action is not None:
        query = query.where(audit.c.action == action)
    return [AuditRow(**row) for row in (await connection.execute(query)).mappings()]
