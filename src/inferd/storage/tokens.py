"""API tokens in the database: a keyed digest, and the secret sealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.errors import Conflict
from inferd.storage.rows import Role, TokenRow
from inferd.storage.tables import accounts, tokens
from inferd.storage.tables_access import members


class LiveToken(NamedTuple):
    """A token of an account that exists."""

    row: TokenRow
    account_name: str
    suspended: str | None
    """Why the account may not spend."""
    role: Role | None
    """Of the token's person in the account; None: it is nobody's own."""


_LIVE = tokens.c.revoked_unix_ns.is_(None)
_OWNER = (members.c.account_id == tokens.c.account_id) & (members.c.person_id == tokens.c.person_id)


def _words(column: str | None) -> tuple[str, ...] | None:
    return None if column is None else tuple(column.split())


def _column(words: tuple[str, ...] | None) -> str | None:
    return None if words is None else " ".join(words)


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
        person_id=found.person_id,
        expires_unix_ns=found.expires_unix_ns,
        allowed_ips=_words(found.allowed_ips),
        allowed_models=_words(found.allowed_models),
        sealed=found.sealed,
        monthly_limit_nanos=found.monthly_limit_nanos,
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
                person_id=row.person_id,
                expires_unix_ns=row.expires_unix_ns,
                allowed_ips=_column(row.allowed_ips),
                allowed_models=_column(row.allowed_models),
                sealed=row.sealed,
                monthly_limit_nanos=row.monthly_limit_nanos,
            )
        )
    except IntegrityError:
        raise Conflict("There is a token of this name already.", param="name") from None


async def by_digest(connection: AsyncConnection, digest: bytes) -> LiveToken | None:
    """The live token behind a digest."""
    return await _live(connection, tokens.c.digest == digest)


async def by_name(connection: AsyncConnection, account_id: str, name: str) -> LiveToken | None:
    """The account's live token of a name."""
    return await _live(connection, tokens.c.account_id == account_id, tokens.c.name == name)


async def _live(connection: AsyncConnection, *which: ColumnElement[bool]) -> LiveToken | None:
    query = (
        select(tokens, accounts.c.name.label("account_name"), accounts.c.suspended, members.c.role)
        .join(accounts, accounts.c.id == tokens.c.account_id)
        .outerjoin(members, _OWNER)
        .where(*which, _LIVE, accounts.c.deleted_unix_ns.is_(None))
        # A person's token is as dead as his membership.
        .where(tokens.c.person_id.is_(None) | members.c.role.is_not(None))
    )
    found = (await connection.execute(query)).first()
    if found is None:
        return None
    return LiveToken(_row(found), found.account_name, found.suspended, found.role)


async def of_account(
    connection: AsyncConnection, account_id: str, person_id: str | None = None
) -> Sequence[TokenRow]:
    """The live tokens of an account, or of one person in it; oldest first."""
    query = select(tokens).where(_owned(account_id, person_id)).order_by(tokens.c.id)
    return [_row(found) for found in await connection.execute(query)]


async def by_id(
    connection: AsyncConnection, account_id: str, token_id: str, person_id: str | None = None
) -> TokenRow | None:
    """A live token of an account, or of one person in it."""
    query = select(tokens).where(_owned(account_id, person_id), tokens.c.id == token_id)
    found = (await connection.execute(query)).first()
    return None if found is None else _row(found)


async def account_of(connection: AsyncConnection, token_id: str) -> str | None:
    """The account of a live token."""
    query = select(tokens.c.account_id).where(tokens.c.id == token_id, _LIVE)
    return (await connection.execute(query)).scalar()


async def monthly_limit_of(connection: AsyncConnection, token_id: str) -> int | None:
    """What a token may cost in a month, also of one that was revoked; None: there is no limit."""
    query = select(tokens.c.monthly_limit_nanos).where(tokens.c.id == token_id)
    return (await connection.execute(query)).scalar()


async def revoke(
    connection: AsyncConnection,
    account_id: str,
    token_id: str,
    now_unix_ns: int,
    person_id: str | None = None,
) -> bool:
    """End a live token of the account, or of one person in it; False if there is none."""
    change = update(tokens).where(_owned(account_id, person_id), tokens.c.id == token_id)
    return (await connection.execute(change.values(revoked_unix_ns=now_unix_ns))).rowcount == 1


async def revoke_all(
    connection: AsyncConnection, account_id: str, now_unix_ns: int, person_id: str | None = None
) -> None:
    """End all live tokens of an account, or of one person in it."""
    change = update(tokens).where(_owned(account_id, person_id))
    await connection.execute(change.values(revoked_unix_ns=now_unix_ns))


async def reseal(
    connection: AsyncConnection, token_id: str, digest: bytes, sealed: bytes | None
) -> None:
    """Keep the same secret under another key."""
    change = update(tokens).where(tokens.c.id == token_id)
    await connection.execute(change.values(digest=digest, sealed=sealed))


async def every(connection: AsyncConnection) -> Sequence[TokenRow]:
    """All live tokens of the installation."""
    return [_row(found) for found in await connection.execute(select(tokens).where(_LIVE))]


def _owned(account_id: str, person_id: str | None) -> ColumnElement[bool]:
    owned = _LIVE & (tokens.c.account_id == account_id)
    return owned if person_id is None else owned & (tokens.c.person_id == person_id)
