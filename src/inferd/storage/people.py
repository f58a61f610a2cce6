"""People and their part in accounts, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.errors import Conflict
from inferd.storage.rows import AccountRow, MemberRow, PersonRow, Role
from inferd.storage.tables import accounts
from inferd.storage.tables_access import members, people
from inferd.storage.tables_operation import identities, passwords, sessions


class Membership(NamedTuple):
    """A person's part in an account that exists."""

    account: AccountRow
    role: Role


class Teammate(NamedTuple):
    """A member and who that is."""

    person: PersonRow
    role: Role
    since_unix_ns: int


def _person(found: Row[Any]) -> PersonRow:
    return PersonRow(**{name: getattr(found, name) for name in PersonRow.__struct_fields__})


async def add(connection: AsyncConnection, row: PersonRow) -> None:
    """Insert. Raises Conflict if somebody has the e-mail address."""
    try:
        await connection.execute(insert(people).values(**msgspec.structs.asdict(row)))
    except IntegrityError:
        raise Conflict("Somebody has this e-mail address already.", param="email") from None


async def by_id(connection: AsyncConnection, person_id: str) -> PersonRow | None:
    """The person of an id."""
    found = (await connection.execute(select(people).where(people.c.id == person_id))).first()
    return None if found is None else _person(found)


async def by_email(connection: AsyncConnection, email: str) -> PersonRow | None:
    """The person of an address, in lower case."""
    found = (await connection.execute(select(people).where(people.c.email == email))).first()
    return None if found is None else _person(found)


async def change(connection: AsyncConnection, row: PersonRow) -> None:
    """Replace everything but the id. Raises Conflict if somebody has the e-mail address."""
    values = msgspec.structs.asdict(row)
    try:
        await connection.execute(update(people).where(people.c.id == row.id).values(values))
    except IntegrityError:
        raise Conflict("Somebody has this e-mail address already.", param="email") from None


async def join(connection: AsyncConnection, row: MemberRow) -> None:
    """Add a member. Raises Conflict if he is one."""
    try:
        await connection.execute(insert(members).values(**msgspec.structs.asdict(row)))
    except IntegrityError:
        raise Conflict("This person is a member already.", param="email") from None


async def leave(connection: AsyncConnection, account_id: str, person_id: str) -> bool:
    """Remove a member; False if he is none."""
    gone = delete(members).where(
        members.c.account_id == account_id, members.c.person_id == person_id
    )
    return (await connection.execute(gone)).rowcount == 1


async def set_role(
    connection: AsyncConnection, account_id: str, person_id: str, role: Role
) -> bool:
    """Change a member's role; False if he is none."""
    change = update(members).where(
        members.c.account_id == account_id, members.c.person_id == person_id
    )
    return (await connection.execute(change.values(role=role))).rowcount == 1


async def role_of(connection: AsyncConnection, account_id: str, person_id: str) -> Role | None:
    """A person's role in an account; None: not a member."""
    query = select(members.c.role).where(
        members.c.account_id == account_id, members.c.person_id == person_id
    )
    return (await connection.execute(query)).scalar()


async def admins(connection: AsyncConnection, account_id: str) -> int:
    """How many admins an account has."""
    query = select(func.count()).where(
        members.c.account_id == account_id, members.c.role == "admin"
    )
    return (await connection.execute(query)).scalar_one()


async def team(connection: AsyncConnection, account_id: str) -> Sequence[Teammate]:
    """The members of an account, oldest first."""
    query = (
        select(people, members.c.role, members.c.created_unix_ns.label("since_unix_ns"))
        .join(members, members.c.person_id == people.c.id)
        .where(members.c.account_id == account_id)
        .order_by(members.c.created_unix_ns, people.c.id)
    )
    rows = await connection.execute(query)
    return [Teammate(_person(row), row.role, row.since_unix_ns) for row in rows]


async def memberships(connection: AsyncConnection, person_id: str) -> Sequence[Membership]:
    """Accounts of a person that are not deleted, his own first."""
    query = (
        select(accounts, members.c.role)
        .join(members, members.c.account_id == accounts.c.id)
        .where(members.c.person_id == person_id, accounts.c.deleted_unix_ns.is_(None))
        .order_by(accounts.c.kind, members.c.created_unix_ns, accounts.c.id)
    )
    rows = await connection.execute(query)
    names = AccountRow.__struct_fields__
    return [
        Membership(AccountRow(**{name: getattr(row, name) for name in names}), row.role)
        for row in rows
    ]


async def disband(connection: AsyncConnection, account_id: str) -> None:
    """Remove every member of an account."""
    await connection.execute(delete(members).where(members.c.account_id == account_id))


async def erase(connection: AsyncConnection, person_id: str) -> None:
    """Forget who a person is and how he signs in; his id stays where it was written down."""
    for table in (members, identities, passwords, sessions):
        await connection.execute(delete(table).where(table.c.person_id == person_id))
    nobody = {"email": None, "email_verified": False, "name": "", "picture": None}
    await connection.execute(update(people).where(people.c.id == person_id).values(nobody))
