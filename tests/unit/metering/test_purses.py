"""Budgets: a request takes from all that apply or from none, and none is ever overdrawn."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inferd.clock import ManualClock
from inferd.errors import NotFound, PaymentRequired
from inferd.metering.ledger import Ledger
from inferd.metering.payer import Payer
from inferd.metering.purses import month_span
from inferd.storage.database import Database
from inferd.storage.ledger_statements import month_of
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.rows import GrantRow
from tests.unit.storage.test_ledger_writer import entry, make_database

NOVEMBER_30 = round(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()) * 10**9
DAY = 86_400
DOLLAR = 10**9
PAYER = Payer("acc", "tok")
OTHER = Payer("acc", "tok2")


@dataclass
class Books:
    """A ledger over a file, with what a test looks at."""

    path: Path
    clock: ManualClock
    ledger: Ledger = field(init=False)
    writer: LedgerWriter = field(init=False)
    database: Database = field(init=False)

    async def open(self) -> None:
        self.database = Database(self.path)
        self.writer = LedgerWriter(self.path)
        self.ledger = Ledger(self.writer, self.database, self.clock)
        await self.ledger.start()

    async def close(self) -> None:
        await self.writer.close()
        await self.database.close()

    async def pay(
        self, payer: Payer, number: int, held: int, cost: int, *, later: float = 0
    ) -> bool:
        """A request from its reservation to its settlement. False: refused."""
        now = self.clock.unix_ns()
        row = entry(
            number,
            account_id=payer.account_id,
            token_id=payer.token_id,
            jwt_id=payer.jwt_id,
            cost_nanos=cost,
            created_unix_ns=now,
        )
        try:
            await self.ledger.reserve(payer, row.request_id, held, at_unix_ns=now)
        except PaymentRequired:
            return False
        self.clock.advance(later)
        await self.ledger.settle(row)
        return True

    def rows(self) -> dict[str, int]:
        """Purse → spent, as the database has it; those of nothing apart."""
        connection = sqlite3.connect(self.path)
        found = connection.execute("SELECT key, spent_nanos FROM purses WHERE spent_nanos > 0")
        spent = dict(found.fetchall())
        connection.close()
        return spent


def new_books(folder: Path) -> Books:
    path = folder / "inferd.db"
    make_database(path)
    connection = sqlite3.connect(path)
    for account in ("acc", "other"):
        values = (account, account)
        connection.execute(
            "INSERT INTO accounts (id, name, created_unix_ns) VALUES (?, ?, 1)", values
        )
    for token in ("tok", "tok2"):
        connection.execute(
            "INSERT INTO tokens (id, account_id, name, digest, fragment, scopes, created_unix_ns) "
            "VALUES (?, 'acc', ?, ?, '', '', 1)",
            (token, token, token.encode()),
        )
    connection.commit()
    connection.close()
    return Books(path, ManualClock(NOVEMBER_30))


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    made = new_books(tmp_path)
    await made.open()
    yield made
    await made.close()


class TestWhichBudget:
    async def test_a_request_that_one_budget_refuses_takes_nothing_of_the_others(
        self, books: Books
    ) -> None:
        ledger = books.ledger
        await ledger.set_credit("acc", DOLLAR)
        await ledger.set_token_monthly_limit("acc", "tok", 10)
        with pytest.raises(PaymentRequired, match=r"token's monthly limit of .* is \$0.00000001"):
            await ledger.reserve(PAYER, "R1", 11)
        assert (ledger.balance_nanos("acc"), ledger.outstanding_nanos("acc")) == (DOLLAR, 0)
        await ledger.reserve(OTHER, "R2", DOLLAR)
        with pytest.raises(PaymentRequired, match=r"The balance is \$0;"):
            await ledger.reserve(PAYER, "R1", 1)

    async def test_the_tightest_budget_is_the_one_that_is_named(self, books: Books) -> None:
        await books.ledger.set_credit("acc", 30)
        await books.ledger.set_monthly_limit("acc", 20)
        jwt = Payer("acc", "tok", "jwt1", 10)
        with pytest.raises(PaymentRequired, match="scoped JWT's spending limit"):
            await books.ledger.reserve(jwt, "R1", 31)
        with pytest.raises(PaymentRequired, match="account's monthly limit"):
            await books.ledger.reserve(PAYER, "R1", 31)

    async def test_a_jwt_has_a_counter_of_its_own_and_spends_its_tokens_money_too(
        self, books: Books
    ) -> None:
        await books.ledger.set_token_monthly_limit("acc", "tok", 100)
        one, two = Payer("acc", "tok", "jwt1", 60), Payer("acc", "tok", "jwt2", 60)
        assert await books.pay(one, 1, 60, 60)
        assert not await books.pay(one, 2, 1, 1)
        assert await books.pay(two, 3, 40, 40)
        assert not await books.pay(two, 4, 1, 1)
        assert not await books.pay(PAYER, 5, 1, 1)
        spent = books.rows()
        assert (spent["jwt:jwt1"], spent["jwt:jwt2"], spent["token:tok:2026-11"]) == (60, 40, 100)

    async def test_a_limit_of_zero_blocks_even_what_is_free(self, books: Books) -> None:
        assert await books.pay(PAYER, 1, 0, 0)
        await books.ledger.set_token_monthly_limit("acc", "tok", 0)
        assert not await books.pay(PAYER, 2, 0, 0)
        assert await books.pay(OTHER, 3, 5, 5)
        await books.ledger.set_token_monthly_limit("acc", "tok", None)
        assert await books.pay(PAYER, 4, 0, 0)

    async def test_what_is_free_runs_on_empty_credit(self, books: Books) -> None:
        await books.ledger.set_credit("acc", 0)
        assert await books.pay(PAYER, 1, 0, 0)
        assert not await books.pay(PAYER, 2, 1, 1)


class TestLimitsThatChange:
    async def test_a_limit_that_is_set_late_knows_what_was_spent_and_what_runs(
        self, books: Books
    ) -> None:
        assert await books.pay(PAYER, 1, 300, 300)
        await books.ledger.reserve(PAYER, "R2", 500)
        await books.ledger.set_monthly_limit("acc", 1000)
        assert not await books.pay(PAYER, 3, 201, 201)
        assert await books.pay(PAYER, 4, 200, 200)

    async def test_a_limit_that_is_lowered_admits_nothing_until_there_is_room(
        self, books: Books
    ) -> None:
        await books.ledger.set_monthly_limit("acc", 1000)
        await books.ledger.reserve(PAYER, "R1", 900)
        await books.ledger.set_monthly_limit("acc", 500)
        assert not await books.pay(PAYER, 2, 1, 1)
        books.ledger.release("R1")
        assert await books.pay(PAYER, 3, 500, 500)

    async def test_a_limit_that_is_removed_and_set_again_has_forgotten_nothing(
        self, books: Books
    ) -> None:
        await books.ledger.set_monthly_limit("acc", 100)
        assert await books.pay(PAYER, 1, 60, 60)
        await books.ledger.set_monthly_limit("acc", None)
        assert await books.pay(PAYER, 2, 10**15, 30)
        await books.ledger.set_monthly_limit("acc", 100)
        assert not await books.pay(PAYER, 3, 11, 11)
        assert await books.pay(PAYER, 4, 10, 10)

    async def test_an_account_or_token_that_does_not_exist_has_no_limit_to_set(
        self, books: Books
    ) -> None:
        with pytest.raises(NotFound):
            await books.ledger.set_monthly_limit("nobody", 1)
        with pytest.raises(NotFound):
            await books.ledger.set_token_monthly_limit("other", "tok", 1)


class TestCredit:
    async def test_a_grant_counts_once_and_makes_a_budget(self, books: Books) -> None:
        grant = GrantRow("grant1", "acc", 100, "hello", "tok", 1)
        assert await books.ledger.grant(grant)
        assert not await books.ledger.grant(grant)
        assert await books.pay(PAYER, 1, 100, 70)
        assert not await books.pay(PAYER, 2, 31, 31)
        assert await books.ledger.grant(GrantRow("grant2", "acc", 1, "", "tok", 2))
        assert await books.pay(PAYER, 3, 31, 31)

    async def test_nobody_is_granted_anything_who_does_not_exist(self, books: Books) -> None:
        with pytest.raises(NotFound):
            await books.ledger.grant(GrantRow("grant1", "nobody", 100, "", "", 1))


class TestMonths:
    async def test_a_new_month_begins_at_midnight_utc(self, books: Books) -> None:
        await books.ledger.set_monthly_limit("acc", 100)
        assert await books.pay(PAYER, 1, 100, 100)
        books.clock.advance(DAY / 2 - 1)
        assert not await books.pay(PAYER, 2, 1, 1)
        books.clock.advance(1)
        assert await books.pay(PAYER, 3, 100, 100)

    async def test_what_was_reserved_in_november_is_spent_there_though_it_ends_in_december(
        self, books: Books
    ) -> None:
        await books.ledger.set_monthly_limit("acc", 100)
        books.clock.advance(DAY / 2 - 1)
        assert await books.pay(PAYER, 1, 40, 40, later=5)
        assert await books.pay(PAYER, 2, 100, 100)
        spent = books.rows()
        assert spent["month:acc:2026-11"] == 40
        assert spent["month:acc:2026-12"] == 100

    def test_months_meet_without_a_gap(self) -> None:
        begin, end = month_span(NOVEMBER_30)
        assert (month_of(begin), month_of(end - 1), month_of(end)) == (
            "2026-11",
            "2026-11",
            "2026-12",
        )
        january = month_span(month_span(end)[1])
        assert month_of(january[0]) == "2027-01"


class TestOnceOnly:
    async def test_a_request_that_was_booked_in_an_earlier_life_is_not_spent_again(
        self, books: Books
    ) -> None:
        await books.ledger.set_credit("acc", 100)
        assert await books.pay(PAYER, 1, 60, 60)
        await books.close()
        await books.open()
        assert await books.pay(PAYER, 1, 40, 40)
        assert books.ledger.balance_nanos("acc") == 40
        assert books.rows()["credit:acc"] == 60

    async def test_a_waiting_reservation_that_is_cancelled_has_taken_nothing(
        self, books: Books
    ) -> None:
        await books.ledger.set_credit("acc", 100)
        waiting = asyncio.ensure_future(books.ledger.reserve(PAYER, "R1", 100))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await books.pay(PAYER, 2, 100, 100)

    async def test_a_payer_that_is_known_reads_no_database_and_does_not_wait(
        self, books: Books, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await books.ledger.set_credit("acc", 100)
        assert await books.pay(PAYER, 1, 1, 1)
        monkeypatch.delattr(Database, "reading")
        reserving = books.ledger.reserve(PAYER, "R2", 5)
        with pytest.raises(StopIteration):
            reserving.send(None)
        assert books.ledger.outstanding_nanos("acc") == 5

    async def test_purses_that_nothing_needs_are_forgotten_and_read_again(
        self, books: Books, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inferd.metering.ledger.PURSES_MAX", 4)
        monkeypatch.setattr("inferd.metering.ledger.FORGET_SECONDS", 0)
        await books.ledger.set_credit("acc", 100)
        await books.ledger.reserve(PAYER, "R1", 30)
        for number in range(2, 7):
            assert await books.pay(Payer("acc", "tok", f"jwt{number}", 5), number, 5, 5)
            assert not await books.pay(Payer("acc", "tok", f"jwt{number}", 5), 90, 1, 1)
        assert await books.pay(OTHER, 8, 45, 45)
        assert not await books.pay(OTHER, 9, 1, 1)
