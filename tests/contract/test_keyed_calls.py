"""Calls with an Idempotency-Key: one of many begins, on each database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from inferd.storage import idempotency as stored
from inferd.storage.database import Database
from inferd.storage.idempotency import KeyedCall

CALL = KeyedCall("acc", "key", b"f" * 32, "R1", "g1", 7, 1000)


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(database_url, directory=tmp_path)
    yield made
    await made.close()


async def claim(database: Database, call: KeyedCall, expired_unix_ns: int = 0) -> bool:
    async with database.writing() as connection:
        return await stored.claim(connection, call, expired_unix_ns)


async def found(database: Database) -> KeyedCall | None:
    async with database.reading() as connection:
        return await stored.get(connection, CALL.account_id, CALL.key)


async def test_of_many_who_claim_a_key_at_once_one_gets_it(database: Database) -> None:
    calls = [msgspec.structs.replace(CALL, request_id=f"R{number}") for number in range(8)]
    won = await asyncio.gather(*(claim(database, call) for call in calls))
    assert sum(won) == 1
    assert await found(database) == calls[won.index(True)]
    assert await claim(database, msgspec.structs.replace(CALL, account_id="other"))


async def test_an_answer_comes_back_as_it_was(database: Database) -> None:
    await claim(database, CALL)
    answered = msgspec.structs.replace(
        CALL, status=200, headers=b"\x90", body=b"\x00\xff" * 9, body_bytes=18
    )
    async with database.writing() as connection:
        await stored.keep(connection, answered)
    assert await found(database) == answered
    async with database.reading() as connection:
        assert await stored.sizes(connection) == [("acc", 1, 18)]
    async with database.writing() as connection:
        await stored.drop_bodies(connection, "acc", 1)
    assert await found(database) == msgspec.structs.replace(answered, body=None, body_bytes=0)


async def test_of_many_who_take_over_from_the_dead_one_does(database: Database) -> None:
    await claim(database, CALL)
    heirs = [
        msgspec.structs.replace(CALL, request_id=f"R{number}", epoch_unix_ns=number + 100)
        for number in range(2, 8)
    ]

    async def take(heir: KeyedCall) -> bool:
        async with database.writing() as connection:
            return await stored.take_over(connection, CALL, heir)

    won = await asyncio.gather(*(take(heir) for heir in heirs))
    assert sum(won) == 1
    assert await found(database) == heirs[won.index(True)]


async def test_what_is_forgotten_or_old_may_be_claimed_again(database: Database) -> None:
    await claim(database, CALL)
    async with database.writing() as connection:
        await stored.forget(connection, msgspec.structs.replace(CALL, request_id="R9"))
    assert await found(database) == CALL
    async with database.writing() as connection:
        await stored.forget(connection, CALL)
    assert await claim(database, CALL)
    later = msgspec.structs.replace(CALL, request_id="R2", created_unix_ns=5000)
    assert not await claim(database, later, expired_unix_ns=1000)
    assert await claim(database, later, expired_unix_ns=1001)
    async with database.writing() as connection:
        assert not await stored.sweep(connection, 5001)
    assert await found(database) is None
