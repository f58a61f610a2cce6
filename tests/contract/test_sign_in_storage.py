"""Passwords, sessions and sign-ins say the same on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferd.access import audit
from inferd.access.attempts import PAIR_MAX, Attempts
from inferd.access.caller import ADMIN, Caller
from inferd.access.sessions import Sessions
from inferd.access.sign_in import SignIn
from inferd.access.tokens import Tokens
from inferd.clock import ManualClock
from inferd.errors import TooManyRequests, Unauthorized
from inferd.storage import audit as rows
from inferd.storage import sign_in
from inferd.storage.database import Database
from inferd.storage.sign_in import CommandSignInRow, SignInRow

CLOCK = ManualClock()


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(database_url, directory=tmp_path)
    yield made
    await made.close()


async def test_of_many_attempts_at_once_each_counts(database: Database) -> None:
    attempts = Attempts(database, CLOCK)

    async def one() -> bool:
        try:
            await attempts.count("admin", "198.51.100.7")
        except TooManyRequests:
            return False
        return True

    allowed = await asyncio.gather(*(one() for _ in range(PAIR_MAX + 15)))
    assert allowed.count(True) == PAIR_MAX
    await attempts.succeeded("admin", "198.51.100.7")
    assert await one()


async def test_a_sign_in_is_taken_once(database: Database) -> None:
    row = SignInRow(b"s" * 32, b"b" * 32, "acme", "nonce", "verifier", "/docs", 10)
    async with database.writing() as connection:
        await sign_in.add_sign_in(connection, row)

    async def take() -> SignInRow | None:
        async with database.writing() as connection:
            return await sign_in.take_sign_in(connection, row.state_digest)

    taken = await asyncio.gather(*(take() for _ in range(6)))
    assert [found for found in taken if found is not None] == [row]


async def test_what_is_over_is_forgotten(database: Database) -> None:
    async with database.writing() as connection:
        for number, expires in ((1, 5), (2, 50)):
            row = CommandSignInRow(bytes([number]) * 32, "per_1", "acc_1", expires)
            await sign_in.add_command_sign_in(connection, row)
        await sign_in.forget_expired(connection, 10)
        assert not await sign_in.is_allowed(connection, b"\x01" * 32)
        assert await sign_in.is_allowed(connection, b"\x02" * 32)


async def test_the_admin_signs_in(database: Database) -> None:
    tokens = Tokens(database, b"k" * 32, CLOCK)
    await tokens.ensure_admin("b" * 40)
    caller = await tokens.authenticate("b" * 40)
    sessions = Sessions(database, CLOCK, idle_seconds=3600, seconds_max=7200)
    people = SignIn(database, CLOCK, sessions)
    password = await people.first_password(caller)
    assert password is not None
    assert await people.first_password(caller) is None
    with pytest.raises(Unauthorized):
        await people.with_password("admin", "wrong", "")
    begun = await people.with_password("admin", password, "198.51.100.7")
    person = await sessions.authenticate(begun.secret)
    assert person.may(ADMIN)
    assert person.account_id == caller.account_id
    await people.change_password(person, password, "correct horse battery", "")
    await sessions.end(person, person.token_id)
    with pytest.raises(Unauthorized):
        await sessions.authenticate(begun.secret)


async def test_audit_rows_come_in_pages(database: Database) -> None:
    caller = Caller("acc_1", "tok_1", "auto", frozenset({ADMIN}))
    async with database.writing() as connection:
        for number in range(5):
            action = ("token.create", "token.revoke")[number % 2]
            await audit.write(connection, caller, action, f"t{number}", {"n": number})
    async with database.reading() as connection:
        every = await rows.page(connection, before=None, count_max=10)
        first = await rows.page(connection, before=None, count_max=2)
        rest = await rows.page(connection, before=first[-1].id, count_max=10)
        revoked = await rows.page(
            connection, before=None, count_max=10, account_id="acc_1", action="token.revoke"
        )
    assert [*first, *rest] == list(every)
    assert [row.id for row in every] == sorted((row.id for row in every), reverse=True)
    assert sorted(row.target for row in revoked) == ["t1", "t3"]
