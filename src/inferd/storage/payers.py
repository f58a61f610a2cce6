"""Whether who asked for work that is done later may still be billed for it."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.checks import WITHOUT_ROW
from inferd.storage.tables import accounts, tokens
from inferd.storage.tables_access import members
from inferd.storage.tables_operation import sessions


async def refusals(connection: AsyncConnection, account_ids: Collection[str]) -> dict[str, str]:
    """Account → why it may spend nothing; those are left out that may."""
    query = select(accounts.c.id, accounts.c.suspended, accounts.c.deleted_unix_ns)
    rows = await connection.execute(query.where(accounts.c.id.in_(account_ids)))
    known = {row[0]: _why_not(row[1], row[2]) for row in rows}
    told = {account_id: known.get(account_id, _GONE) for account_id in account_ids}
    return {account_id: why for account_id, why in told.items() if why is not None}


async def is_live(connection: AsyncConnection, token_id: str, now_unix_ns: int) -> bool:
    """True if the token, or the session, that asked could ask again."""
    if token_id in WITHOUT_ROW:
        return True
    owner = (members.c.account_id == tokens.c.account_id) & (
        members.c.person_id == tokens.c.person_id
    )
    token = (
        select(tokens.c.id)
        .outerjoin(members, owner)
        .where(tokens.c.id == token_id, tokens.c.revoked_unix_ns.is_(None))
        .where(tokens.c.expires_unix_ns.is_(None) | (tokens.c.expires_unix_ns > now_unix_ns))
        .where(tokens.c.person_id.is_(None) | members.c.role.is_not(None))
    )
    session = select(sessions.c.id).where(
        sessions.c.id == token_id, sessions.c.expires_unix_ns > now_unix_ns
    )
    found = [(await connection.execute(query)).first() for query in (token, session)]
    return any(row is not None for row in found)


_GONE = "The account was deleted."


def _why_not(suspended: str | None, deleted_unix_ns: int | None) -> str | None:
    if deleted_unix_ns is not None:
        return _GONE
    return None if suspended is None else f"The account is suspended: {suspended}"
