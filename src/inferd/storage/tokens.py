"""API tokens in the database. Never the secret, only its keyed digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.errors import Conflict
from inferd.storage.rows import TokenRow
from inferd.storage.tables import tokens


def _row(found: Row[Any]) -> TokenRow:
    return TokenRow(
        id=found.id,
        account_id=found.account_id,
        name=found.name,
        digest=found.digest,
        fragment=found.fragment,
        scopes=tuple(found.scopes.split()),
        created_unix_ns=found.created_unix_ns,
        revoked_unix_ns=found.revoked_unix_ns,
    )


async def add(connection: AsyncConnection, row: TokenRow) -> None:
    """Insert. Raises Conflict if a live token of the account has the name."""
    try:
        await connection.execute(
            insert(tokens).values(
                id=row.id,
                account_id=row.account_id,
                name=row.name,
                digest=row.digest,
                fragment=row.fragment,
                scopes=" ".join(row.scopes),
                created_unix_ns=row.created_unix_ns,
            )
        )
    except IntegrityError:
        raise Conflict("There is a token of this name already.", param="name") from None


async def by_digest(connection: AsyncConnection, digest: bytes) -> TokenRow | None:
    """The live token behind a digest."""
    query = select(tokens).where(tokens.c.digest == digest, tokens.c.revoked_unix_ns.is_(None))
    found = (await connection.execute(query)).first()
    return None if found is None else _row(found)


async def of_account(connection: AsyncConnection, account_id: str) -> Sequence[TokenRow]:
    """The live tokens of an account, oldest first."""
    query = (
        select(tokens)
        .where(tokens.c.account_id == account_id, tokens.c.revoked_unix_ns.is_(None))
        .order_by(tokens.c.id)
    )
    return [_row(found) for found in await connection.execute(query)]


async def revoke(
    connection: AsyncConnection, account_id: str, token_id: str, now_unix_ns: int
) -> TokenRow | None:
    """End a live token of the account; None if there is none of this id."""
    query = select(tokens).where(
        tokens.c.id == token_id,
        tokens.c.account_id == account_id,
        tokens.c.revoked_unix_ns.is_(None),
    )
    found = (await connection.execute(query)).first()
    if found is None:
        return None
    await connection.execute(
        update(tokens).where(tokens.c.id == token_id).values(revoked_unix_ns=now_unix_ns)
    )
    return _row(found)
