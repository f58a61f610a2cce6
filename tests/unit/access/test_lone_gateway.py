"""Who counts limits alone, on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferd.access.lone_gateway import require_first, require_lone
from inferd.errors import Unavailable
from inferd.storage import leases
from inferd.storage.database import Database
from tests.servers import PostgresServer


@pytest.fixture
async def database(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(await postgres.migrated(), directory=tmp_path)
    yield opened
    await opened.close()


async def lives(database: Database, gateway: str) -> int:
    async with database.writing() as connection:
        return await leases.enter(connection, gateway)


async def test_a_gateway_of_the_same_machine_is_no_other(database: Database) -> None:
    for name in ("gw_a.0", "gw_a.1"):
        await lives(database, name)
    await require_lone(database, "gw_a.0")
    await require_first(database, "gw_a.0", 1 << 62)


async def test_one_that_beats_is_named(database: Database) -> None:
    epoch = await lives(database, "gw_b.0")

    async def beat() -> None:
        while True:
            async with database.writing() as connection:
                await leases.beat(connection, "gw_b.0", epoch)

    async with asyncio.timeout(leases.ALIVE_SECONDS):
        beating = asyncio.create_task(beat())
        with pytest.raises(Unavailable, match=r"gw_b\.0 .*valkey_url"):
            await require_lone(database, "gw_a.0")
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def test_of_two_that_start_at_once_the_first_one_stays(database: Database) -> None:
    first, second = await lives(database, "gw_a.0"), await lives(database, "gw_b.0")
    await require_first(database, "gw_a.0", first)
    with pytest.raises(Unavailable, match="valkey_url"):
        await require_first(database, "gw_b.0", second)
