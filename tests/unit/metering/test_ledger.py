"""Balances: never below zero, never lost, the same after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inferd.clock import ManualClock
from inferd.errors import PaymentRequired, Unavailable
from inferd.metering.ledger import Ledger
from inferd.metering.payer import Payer
from inferd.metering.prices import PriceBook
from inferd.storage import accounts
from inferd.storage.database import Database
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.rows import AccountRow
from tests.gateway import echo_card
from tests.unit.storage.test_ledger_writer import entry, make_database

CREDIT = 1_000_000_000
PAYER = Payer("acc", "tok")


@asynccontextmanager
async def ledger_over(path: Path, *, credit: int | None = CREDIT) -> AsyncGenerator[Ledger]:
    if not path.exists():
        make_database(path)
    database = Database(path)
    writer = LedgerWriter(path)
    ledger = Ledger(writer, database, ManualClock())
    async with database.writing() as connection:
        if await accounts.by_name(connection, "acc") is None:
            await accounts.add(connection, AccountRow("acc", "acc", 1, credit))
    await ledger.start()
    try:
        yield ledger
    finally:
        await writer.close()
        await database.close()


async def test_a_dollar_admits_twenty_of_two_hundred_at_five_cents(tmp_path: Path) -> None:
    async with ledger_over(tmp_path / "inferd.db") as ledger:
        admitted: list[str] = []
        for number in range(200):
            try:
                await ledger.reserve(PAYER, entry(number).request_id, 50_000_000)
            except PaymentRequired:
                continue
            else:
                admitted.append(entry(number).request_id)
        assert len(admitted) == 20
        assert ledger.balance_nanos("acc") == 0
        for number in range(20):
            await ledger.settle(entry(number, cost_nanos=50_000_000))
        assert (ledger.balance_nanos("acc"), ledger.outstanding_nanos("acc")) == (0, 0)


async def test_an_account_without_a_budget_reserves_nothing(tmp_path: Path) -> None:
    async with ledger_over(tmp_path / "inferd.db", credit=None) as ledger:
        await ledger.reserve(PAYER, "R1", 10**15)
        assert ledger.balance_nanos("acc") is None


async def test_what_a_dead_process_held_is_released_at_start(tmp_path: Path) -> None:
    path = tmp_path / "inferd.db"
    async with ledger_over(path) as ledger:
        await ledger.reserve(PAYER, "R1", 400)
        await ledger.settle(entry(2, cost_nanos=100))
    async with ledger_over(path) as ledger:
        assert ledger.recovered == 1
        await ledger.reserve(PAYER, "R3", CREDIT - 100)
        assert ledger.balance_nanos("acc") == 0


async def test_shrinking_gives_back_and_never_takes(tmp_path: Path) -> None:
    async with ledger_over(tmp_path / "inferd.db") as ledger:
        await ledger.reserve(PAYER, "R1", 1000)
        ledger.shrink("R1", 300)
        ledger.shrink("R1", 900)
        ledger.shrink("unknown", 1)
        assert ledger.outstanding_nanos("acc") == 300
        ledger.release("R1")
        ledger.release("R1")
        assert ledger.balance_nanos("acc") == CREDIT


async def test_settling_the_same_request_at_once_books_it_once(tmp_path: Path) -> None:
    async with ledger_over(tmp_path / "inferd.db") as ledger:
        await ledger.reserve(PAYER, entry(1).request_id, 100)
        await asyncio.gather(*(ledger.settle(entry(1, cost_nanos=60)) for _ in range(5)))
        assert ledger.balance_nanos("acc") == CREDIT - 60


class TestPrices:
    async def test_a_changed_card_begins_a_new_version_and_old_entries_keep_theirs(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "inferd.db"
        make_database(path)
        database = Database(path)
        book = PriceBook(database, ManualClock())
        first = echo_card()
        await book.sync([first])
        before = book.current(first.name)
        await book.sync([first])
        assert book.current(first.name) == before
        cheaper = echo_card(price=None, free=True)
        await book.sync([cheaper])
        after = book.current(first.name)
        assert (after.id > before.id, after.input) == (True, 0)
        await database.close()

    async def test_a_model_without_a_price_is_not_live(self, tmp_path: Path) -> None:
        make_database(tmp_path / "inferd.db")
        database = Database(tmp_path / "inferd.db")
        with pytest.raises(Unavailable):
            PriceBook(database, ManualClock()).current("a/unknown")
        await database.close()
