"""The first grant: all of it in one transaction, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

from inferd.clock import SystemClock
from inferd.errors import BadRequest, Conflict, NotFound
from inferd.metering.credit import budget, grant
from inferd.metering.ledger import Ledger
from inferd.metering.payer import Payer
from inferd.storage import accounts, purses
from inferd.storage.database import Database
from inferd.storage.database_url import is_postgres
from inferd.storage.rows import AccountRow, GrantRow
from tests.books import PRICE, entry, writer_of

DOLLAR = 10**9
PAYER = Payer("acc", "tok")


class Bank:
    """A ledger over a database with two accounts, of which one has spent."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self.database = database
        self.ledger = ledger
        self.number = 0

    async def spend(self, nanos: int) -> None:
        """Book an entry."""
        self.number += 1
        now = SystemClock().unix_ns()
        await self.ledger.settle(entry(self.number, cost_nanos=nanos, created_unix_ns=now))

    async def granted(self, account_id: str = "acc") -> list[int]:
        """The amounts of all grants, the smallest first."""
        async with self.database.reading() as connection:
            return sorted(row.nanos for row in await purses.granted(connection, account_id))

    async def balance(self) -> int | None:
        """As the database has it."""
        found = await budget(self.database, "acc", SystemClock().unix_ns())
        return found.balance_nanos


@pytest.fixture
async def bank(database_url: str, tmp_path: Path) -> AsyncIterator[Bank]:
    async with AsyncExitStack() as stack:
        database = Database(database_url, directory=tmp_path)
        stack.push_async_callback(database.close)
        async with database.writing() as connection:
            await connection.execute(text(PRICE))
            for name in ("acc", "other"):
                await accounts.add(connection, AccountRow(name, name, 1, None))
        writer = writer_of(database_url, tmp_path)
        stack.push_async_callback(writer.close)
        name = "gateway.0" if is_postgres(database_url) else ""
        ledger = Ledger(writer, database, SystemClock(), name)
        await ledger.start()
        stack.push_async_callback(ledger.close)
        yield Bank(database, ledger)


def first(grant_id: str = "g", nanos: int = DOLLAR, note: str = "") -> GrantRow:
    return GrantRow(grant_id, "acc", nanos, note, "", 1)


async def test_what_was_spent_before_the_first_grant_is_covered(bank: Bank) -> None:
    await bank.spend(7)
    assert await bank.ledger.grant(first())
    assert await bank.granted() == [7, DOLLAR]
    await bank.spend(11)
    assert await bank.balance() == DOLLAR - 11


async def test_nobody_is_refused_while_the_first_grant_is_made(bank: Bank) -> None:
    await bank.spend(7)
    await bank.ledger.reserve(PAYER, "R0", 5)
    granting = asyncio.ensure_future(bank.ledger.grant(first()))
    turns = 0
    while not granting.done():
        turns += 1
        await bank.ledger.reserve(PAYER, f"R{turns}", 5)
        bank.ledger.release(f"R{turns}")
        await asyncio.sleep(0)
    assert await granting


async def test_a_first_grant_that_is_refused_leaves_the_account_as_it_was(bank: Bank) -> None:
    await bank.spend(7)
    await bank.ledger.grant(GrantRow("g", "other", 5, "", "", 1))
    with pytest.raises(Conflict):
        await bank.ledger.grant(first())
    if bank.database.dialect == "postgresql":
        with pytest.raises(BadRequest):
            await bank.ledger.grant(first("g2", note="a\0b"))
    assert await bank.granted() == []
    assert await bank.balance() is None
    await bank.ledger.reserve(PAYER, "R1", DOLLAR)


async def test_a_process_that_dies_in_the_middle_has_granted_nothing(bank: Bank) -> None:
    await bank.spend(7)

    async def dies() -> None:
        async with bank.ledger.changing("acc") as connection:
            await grant(connection, first())
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await dies()
    assert (await bank.granted(), await bank.balance()) == ([], None)


async def test_an_id_that_an_admin_chose_never_takes_the_place_of_an_opening_grant(
    bank: Bank,
) -> None:
    await bank.spend(7)
    await bank.ledger.grant(GrantRow("opening-acc", "other", 5, "", "", 1))
    await bank.ledger.grant(first())
    assert await bank.balance() == DOLLAR


async def test_the_same_id_with_another_amount_is_refused(bank: Bank) -> None:
    await bank.ledger.grant(first())
    assert not await bank.ledger.grant(first())
    with pytest.raises(Conflict):
        await bank.ledger.grant(first(nanos=5))


async def test_the_dead_get_no_credit(bank: Bank) -> None:
    async with bank.database.writing() as connection:
        await accounts.delete(connection, "acc", 5)
    with pytest.raises(NotFound):
        await bank.ledger.grant(first())


async def test_what_is_booked_while_the_grant_waits_is_covered_too(bank: Bank) -> None:
    """PostgreSQL: the grant reads the spend under the lock that entries take."""
    if bank.database.dialect == "sqlite":
        pytest.skip("It has one writer.")
    await bank.spend(7)
    async with bank.database.writing() as booking:
        await booking.execute(text("UPDATE purses SET spent_nanos = spent_nanos + 100"))
        granting = asyncio.ensure_future(bank.ledger.grant(first()))
        async with asyncio.timeout(10), bank.database.reading() as looking:
            waits = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)")
            while not (await looking.execute(waits)).scalar_one():
                await asyncio.sleep(0)
    await granting
    assert await bank.granted() == [107, DOLLAR]


async def test_grants_under_load_leave_the_exact_balance(bank: Bank) -> None:
    await asyncio.gather(*(bank.spend(3) for _ in range(20)))
    await asyncio.gather(
        *(bank.spend(1) for _ in range(100)),
        *(bank.ledger.grant(first(f"g{n}", 1000)) for n in range(5)),
    )
    opening = sum(await bank.granted()) - 5000
    assert 60 <= opening <= 160
    assert await bank.balance() == 5000 + opening - 160
    await bank.spend(13)
    assert await bank.balance() == 5000 + opening - 173
    if bank.database.dialect == "sqlite":
        await bank.ledger.reserve(PAYER, "R", 0)
        assert bank.ledger.balance_nanos("acc") == await bank.balance()
