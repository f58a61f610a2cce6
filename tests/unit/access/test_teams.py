"""Teams on both databases: an admin is always left, and who leaves is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferd.access.accounts import Accounts
from inferd.access.caller import ACCOUNT_ADMIN, ADMIN, INFERENCE_RUN, Caller
from inferd.access.changes import Changes
from inferd.access.teams import Teams
from inferd.access.tokens import Tokens, TokenWish
from inferd.clock import SystemClock
from inferd.errors import Conflict, NotFound, Unauthorized
from inferd.storage import people
from inferd.storage.database import Database

OPERATOR = Caller("acc", "tok", "t", frozenset({ADMIN}))


class Rooms:
    """What the tests call."""

    def __init__(self, database: Database) -> None:
        clock, self.database = SystemClock(), database
        self.changes = Changes(database)
        self.accounts = Accounts(database, self.changes, clock)
        self.teams = Teams(database, self.changes, clock, self.accounts)
        self.tokens = Tokens(database, b"k" * 32, clock, changes=self.changes)

    async def team(self, *emails: str) -> tuple[Caller, list[str]]:
        """A team's managing caller, and its admins."""
        async with self.changes.writing() as change:
            row = await self.accounts.create_in(change, OPERATOR, "blue", "team")
            found = [await self.accounts.enrol(change, row.id, one, "admin") for one in emails]
        caller = Caller(row.id, "tok", "t", frozenset({ACCOUNT_ADMIN}))
        return caller, [person.id for person in found]


@pytest.fixture
async def rooms(database_url: str, tmp_path: Path) -> AsyncIterator[Rooms]:
    database = Database(database_url, directory=tmp_path)
    yield Rooms(database)
    await database.close()


async def test_admins_who_demote_each_other_at_once_leave_one(rooms: Rooms) -> None:
    emails = [f"p{number}@example.com" for number in range(4)]
    caller, admins = await rooms.team(*emails)
    acts = [rooms.teams.set_role(caller, one, "member") for one in admins[:2]]
    acts += [rooms.teams.remove(caller, one) for one in admins[2:]]
    ends = await asyncio.gather(*acts, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["Conflict", *["NoneType"] * 3]
    roles = [mate.role for mate in await rooms.teams.members(caller.account_id)]
    assert roles.count("admin") == 1


async def test_a_name_is_given_once_to_those_who_ask_at_once(rooms: Rooms) -> None:
    async def make(name: str) -> None:
        async with rooms.changes.writing() as change:
            await rooms.accounts.create_in(change, OPERATOR, name, "team")

    told = await asyncio.gather(*map(make, ("sky", "Sky", "SKY", "sKY")), return_exceptions=True)
    assert [type(one) for one in told if one is not None] == [Conflict] * 3


async def test_who_is_removed_loses_his_tokens_there_and_no_others(rooms: Rooms) -> None:
    caller, (_, person_id) = await rooms.team("a@example.com", "b@example.com")
    mine = Caller(caller.account_id, "tok", "t", caller.scopes, person_id=person_id)
    other = await rooms.teams.create(mine, "red")
    secrets: list[str] = []
    async with rooms.changes.writing() as change:
        for account_id in (caller.account_id, other.id):
            wish = TokenWish("own", (INFERENCE_RUN,), person_id)
            secrets.append((await rooms.tokens.create_in(change, account_id, wish))[1])
    for secret in secrets:
        await rooms.tokens.authenticate(secret)
    await rooms.teams.remove(caller, person_id)
    with pytest.raises(Unauthorized):
        await rooms.tokens.authenticate(secrets[0])
    assert (await rooms.tokens.authenticate(secrets[1])).account_id == other.id
    with pytest.raises(NotFound):
        await rooms.teams.remove(caller, person_id)
    # Nor does a later membership wake what ended with the earlier one.
    await rooms.teams.add(caller, "b@example.com", "member", "")
    with pytest.raises(Unauthorized):
        await rooms.tokens.authenticate(secrets[0])


async def test_a_personal_account_takes_its_person_with_it(rooms: Rooms) -> None:
    async with rooms.changes.writing() as change:
        row = await rooms.accounts.create_in(change, OPERATOR, "ada", "personal")
        person = await rooms.accounts.enrol(change, row.id, "Ada@Example.com", "admin", "Ada")
    caller, _ = await rooms.team("a@example.com")
    await rooms.teams.add(caller, "ada@example.com", "admin", "")
    await rooms.accounts.delete(OPERATOR, row.id)
    with pytest.raises(NotFound):
        await rooms.accounts.get(row.id)
    async with rooms.database.reading() as connection:
        left = await people.by_id(connection, person.id)
        assert left is not None
        assert (left.email, left.name, left.email_verified) == (None, "", False)
        assert await people.memberships(connection, person.id) == []
    # The name and the address are free again.
    async with rooms.changes.writing() as change:
        again = await rooms.accounts.create_in(change, OPERATOR, "ada", "personal")
        await rooms.accounts.enrol(change, again.id, "ada@example.com", "admin")
    with pytest.raises(Conflict):
        async with rooms.changes.writing() as change:
            await rooms.accounts.create_in(change, OPERATOR, "ada", "team")
