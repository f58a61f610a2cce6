"""The nightly check: once a night, by one gateway, told to all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from inferd.api.metrics import Metrics
from inferd.clock import ManualClock
from inferd.errors import Unavailable
from inferd.metering import nightly
from inferd.metering.ledger import Ledger
from inferd.metering.nightly import HELD_NS, Nightly, due_since
from inferd.metering.verify import Running, Verification, verify
from inferd.storage import checks, duties
from inferd.storage.database import Database
from inferd.storage.verifications import VerificationRow
from inferd.storage.writers import ledger_writer
from tests.books import until
from tests.servers import PostgresServer
from tests.unit.metering.test_verify import BROKEN, books

HOUR = 3600.0


class Watch:
    """A gateway that looks, and what it was told."""

    def __init__(self, database: Database, url: str, folder: Path, clock: ManualClock) -> None:
        self.told: list[VerificationRow] = []
        ledger = Ledger(ledger_writer(url, folder), database, clock)
        self.nightly = Nightly(database, ledger, clock, self.told.append)

    async def look(self) -> bool:
        return await self.nightly.look()


def test_a_check_is_due_at_three() -> None:
    day = 20_000 * 86_400 * 10**9
    three = 3 * 3600 * 10**9
    assert due_since(day + three) == day + three
    assert due_since(day + three - 1) == day + three - 86_400 * 10**9


async def test_one_gateway_checks_each_night_and_all_are_told(
    database_url: str, tmp_path: Path
) -> None:
    async with books(database_url, tmp_path) as database:
        clock = ManualClock()
        gateways = [Watch(database, database_url, tmp_path, clock) for _ in range(4)]
        for night in range(3):
            done = await asyncio.gather(*(one.look() for one in gateways))
            assert done.count(True) == 1, night
            assert [await one.look() for one in gateways] == [False] * 4
            assert len({one.told[-1].id for one in gateways}) == 1
            assert (gateways[0].told[-1].entries, gateways[0].told[-1].differences) == (8, 0)
            clock.advance(24 * HOUR)


async def test_what_is_found_is_shown_as_a_metric(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as database:
        metrics, clock = Metrics(), ManualClock()
        ledger = Ledger(ledger_writer(database_url, tmp_path), database, clock)
        watch = Nightly(database, ledger, clock, metrics.verified)
        await watch.look()
        assert b"inferd_ledger_differences 0.0" in metrics.render_shared()
        async with database.writing() as connection:
            await connection.execute(text(BROKEN["a purse"][0]))
        clock.advance(24 * HOUR)
        await watch.look()
        assert b"inferd_ledger_differences 1.0" in metrics.render_shared()


async def test_a_gateway_that_dies_while_it_checks_is_replaced(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with books(database_url, tmp_path) as database:
        clock = ManualClock()
        first = Watch(database, database_url, tmp_path, clock)
        second = Watch(database, database_url, tmp_path, clock)
        checking = asyncio.Event()

        async def stuck(_: Database, __: Running | None = None) -> Verification:
            checking.set()
            return await asyncio.get_running_loop().create_future()

        with monkeypatch.context() as patched:
            patched.setattr(nightly, "verify", stuck)
            task = asyncio.get_running_loop().create_task(first.look())
            await checking.wait()
            task.cancel()
            await asyncio.wait([task])
        assert not await second.look()
        clock.advance(HELD_NS / 1e9)
        assert await second.look()


async def test_a_night_that_breaks_is_tried_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with books(database_url, tmp_path) as database:
        watch = Watch(database, database_url, tmp_path, ManualClock())
        tried: list[int] = []

        async def breaks(*given: Any) -> Verification:
            tried.append(1)
            if len(tried) < 3:
                raise RuntimeError("nobody foresaw it")
            return await verify(*given)

        monkeypatch.setattr(nightly, "verify", breaks)
        monkeypatch.setattr(nightly, "LOOK_SECONDS", 0.001)
        watch.nightly.start()
        await until(lambda: bool(watch.told))
        await watch.nightly.close()
        assert watch.told[0].entries == 8


async def test_a_database_that_goes_away_during_the_check_is_told_as_everywhere(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await postgres.migrated()
    async with books(url, tmp_path) as database:

        async def ends(connection: checks.Connection) -> list[str]:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return []

        monkeypatch.setattr(checks, "every", ends)
        with pytest.raises(Unavailable):
            await verify(database)


async def test_a_duty_is_held_by_one(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url, directory=tmp_path)

    async def take(name: str, now: int) -> bool:
        async with database.writing() as connection:
            return await duties.take(connection, "sweep", name, now, 10)

    assert sorted(await asyncio.gather(*(take(f"g{n}", 5) for n in range(6)))) == [False] * 5 + [
        True
    ]
    assert sorted([await take(f"g{n}", 15) for n in range(6)])[-1]
    await database.close()
