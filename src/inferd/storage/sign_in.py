"""Passwords, sessions and sign-ins under way, in the database. Secrets only as digests."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import case, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables_operation import (
    command_sign_ins,
    identities,
    passwords,
    sessions,
    sign_in_failures,
    sign_ins,
)


class PasswordRow(msgspec.Struct, frozen=True):
    """How a person signs in here."""

    person_id: str
    login: str
    hash: str
    """argon2id with its parameters."""
    changed_unix_ns: int


class SessionRow(msgspec.Struct, frozen=True):
    """A person who is signed in with one browser."""

    id: str
    digest: bytes
    person_id: str
    account_id: str
    """The account that he works in at the moment."""
    provider: str
    """How he signed in: password, or a provider's name."""
    address: str
    created_unix_ns: int
    seen_unix_ns: int
    expires_unix_ns: int


class SignInRow(msgspec.Struct, frozen=True):
    """A browser that was sent to a provider and is expected back."""

    state_digest: bytes
    browser_digest: bytes
    provider: str
    nonce: str
    verifier: str
    return_to: str
    expires_unix_ns: int


class CommandSignInRow(msgspec.Struct, frozen=True):
    """A command line tool that a person let in; its token is made when it asks."""

    digest: bytes
    person_id: str
    account_id: str
    expires_unix_ns: int


async def password_of(connection: AsyncConnection, login: str) -> PasswordRow | None:
    """The password of a login name, in lower case."""
    query = select(passwords).where(passwords.c.login == login)
    found = (await connection.execute(query)).mappings().first()
    return None if found is None else PasswordRow(**found)


async def password_of_person(connection: AsyncConnection, person_id: str) -> PasswordRow | None:
    """A person's password."""
    query = select(passwords).where(passwords.c.person_id == person_id)
    found = (await connection.execute(query)).mappings().first()
    return None if found is None else PasswordRow(**found)


async def set_password(connection: AsyncConnection, row: PasswordRow) -> None:
    """Insert or replace."""
    await connection.execute(delete(passwords).where(passwords.c.person_id == row.person_id))
    await connection.execute(insert(passwords).values(msgspec.structs.asdict(row)))


async def add_session(connection: AsyncConnection, row: SessionRow) -> None:
    """Insert."""
    await connection.execute(insert(sessions).values(msgspec.structs.asdict(row)))


async def session_of(connection: AsyncConnection, digest: bytes) -> SessionRow | None:
    """The session behind a digest, expired or not."""
    query = select(sessions).where(sessions.c.digest == digest)
    found = (await connection.execute(query)).mappings().first()
    return None if found is None else SessionRow(**found)


async def sessions_of(connection: AsyncConnection, person_id: str) -> Sequence[SessionRow]:
    """A person's sessions, the newest first."""
    query = select(sessions).where(sessions.c.person_id == person_id)
    rows = await connection.execute(query.order_by(sessions.c.created_unix_ns.desc()))
    return [SessionRow(**row) for row in rows.mappings()]


async def touch(connection: AsyncConnection, session_id: str, now_unix_ns: int) -> None:
    """The session was used."""
    await connection.execute(
        update(sessions).where(sessions.c.id == session_id).values(seen_unix_ns=now_unix_ns)
    )


async def move(connection: AsyncConnection, session_id: str, account_id: str) -> None:
    """The person works in another account from now on."""
    await connection.execute(
        update(sessions).where(sessions.c.id == session_id).values(account_id=account_id)
    )


async def end_session(connection: AsyncConnection, person_id: str, session_id: str) -> bool:
    """Delete; False if the person has no such session."""
    gone = delete(sessions).where(sessions.c.id == session_id, sessions.c.person_id == person_id)
    return (await connection.execute(gone)).rowcount == 1


async def end_sessions(
    connection: AsyncConnection, person_id: str, *, but: str | None = None
) -> None:
    """Delete all of a person's, but one."""
    await connection.execute(
        delete(sessions).where(sessions.c.person_id == person_id, sessions.c.id != (but or ""))
    )


async def forget_expired(connection: AsyncConnection, now_unix_ns: int) -> None:
    """Delete what nobody can use any more."""
    for table, column in (
        (sessions, sessions.c.expires_unix_ns),
        (sign_ins, sign_ins.c.expires_unix_ns),
        (command_sign_ins, command_sign_ins.c.expires_unix_ns),
        (sign_in_failures, sign_in_failures.c.until_unix_ns),
    ):
        await connection.execute(delete(table).where(column < now_unix_ns))


async def add_sign_in(connection: AsyncConnection, row: SignInRow) -> None:
    """Insert."""
    await connection.execute(insert(sign_ins).values(msgspec.structs.asdict(row)))


async def under_way(connection: AsyncConnection) -> int:
    """How many browsers are at a provider, or never came back and are not forgotten yet."""
    return (await connection.execute(select(func.count()).select_from(sign_ins))).scalar_one()


async def take_sign_in(connection: AsyncConnection, state_digest: bytes) -> SignInRow | None:
    """Return and delete: of two callers at once, one gets it."""
    query = delete(sign_ins).where(sign_ins.c.state_digest == state_digest).returning(sign_ins)
    found = (await connection.execute(query)).mappings().first()
    return None if found is None else SignInRow(**found)


async def add_command_sign_in(connection: AsyncConnection, row: CommandSignInRow) -> None:
    """Insert."""
    await connection.execute(insert(command_sign_ins).values(msgspec.structs.asdict(row)))


async def take_command_sign_in(
    connection: AsyncConnection, digest: bytes
) -> CommandSignInRow | None:
    """Return and delete."""
    gone = delete(command_sign_ins).where(command_sign_ins.c.digest == digest)
    found = (await connection.execute(gone.returning(command_sign_ins))).mappings().first()
    return None if found is None else CommandSignInRow(**found)


async def count_failure(
    connection: AsyncConnection, key: bytes, now_unix_ns: int, until_unix_ns: int
) -> tuple[int, int]:
    """Count one more in the key's window, which begins with its first: (count, end of window)."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    new = dialect.insert(sign_in_failures).values(key=key, failures=1, until_unix_ns=until_unix_ns)
    over = sign_in_failures.c.until_unix_ns <= now_unix_ns
    counted = new.on_conflict_do_update(
        index_elements=[sign_in_failures.c.key],
        set_={
            "failures": case((over, 1), else_=sign_in_failures.c.failures + 1),
            "until_unix_ns": case((over, until_unix_ns), else_=sign_in_failures.c.until_unix_ns),
        },
    ).returning(sign_in_failures.c.failures, sign_in_failures.c.until_unix_ns)
    row = (await connection.execute(counted)).one()
    return row.failures, row.until_unix_ns


async def forget_failures(connection: AsyncConnection, keys: Sequence[bytes]) -> None:
    """The right password was given."""
    await connection.execute(delete(sign_in_failures).where(sign_in_failures.c.key.in_(keys)))


async def person_behind(connection: AsyncConnection, issuer: str, subject: str) -> str | None:
    """The person whom a provider knows as this subject."""
    query = select(identities.c.person_id).where(
        identities.c.issuer == issuer, identities.c.subject == subject
    )
    return (await connection.execute(query)).scalar()


async def link(
    connection: AsyncConnection, issuer: str, subject: str, person_id: str, now_unix_ns: int
) -> None:
    """The provider's subject is this person from now on."""
    await connection.execute(
        insert(identities).values(
            issuer=issuer, subject=subject, person_id=person_id, created_unix_ns=now_unix_ns
        )
    )


async def has_identity(connection: AsyncConnection, issuer: str, person_id: str) -> bool:
    """True if the provider knows the person as some subject already."""
    query = select(identities.c.subject).where(
        identities.c.issuer == issuer, identities.c.person_id == person_id
    )
    return (await connection.execute(query)).first() is not None


async def is_allowed(connection: AsyncConnection, digest: bytes) -> bool:
    """True if a person let this command line tool in."""
    query = select(command_sign_ins.c.digest).where(command_sign_ins.c.digest == digest)
    return (await connection.execute(query)).first() is not None
