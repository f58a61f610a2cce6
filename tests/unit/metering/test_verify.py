"""The ledger's self-check: each thing that must be true, broken by hand, is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from inferd.clock import ManualClock
from inferd.metering.ledger import Ledger
from inferd.metering.payer import Payer
from inferd.metering.verify import DIFFERENCES_SHOWN, Running, Verification, verify
from inferd.storage.database import Database
from inferd.storage.journal import Journal
from inferd.storage.rows import GrantRow, Settle
from inferd.storage.writers import ledger_writer
from tests.unit.storage.test_ledger_writer import entry

DAY_NS = 86_400_000_000_000
NOW = ManualClock().unix_ns()
SETUP = (
    "INSERT INTO accounts (id, name, created_unix_ns) VALUES ('acc', 'acc', 1)",
    "INSERT INTO tokens (id, account_id, name, digest, fragment, scopes, created_unix_ns) "
    "VALUES ('tok', 'acc', 't', '', '', '', 1)",
    "INSERT INTO prices (id, model, input_rate, cached_rate, output_rate, valid_from_unix_ns) "
    "VALUES (1, 'a/b', 1000000, 500000, 2000000, 0)",
)
ENTRY = entry(0, input_tokens=3, cached_tokens=1, output_tokens=2, cost_nanos=7).request_id


@asynccontextmanager
async def books(url: str, tmp_path: Path) -> AsyncGenerator[Database]:
    """A database in which everything is as it must be."""
    database = Database(url, directory=tmp_path)
    async with database.writing() as connection:
        for statement in SETUP:
            await connection.execute(text(statement))
    writer = ledger_writer(url, tmp_path)
    ledger = Ledger(writer, database, ManualClock())
    await ledger.start()
    await ledger.grant(GrantRow("g1", "acc", 10**12, "", "tok", 1))
    for number in range(8):
        # 2 fresh, 1 cached, 2 out at 1, ½ and 2 nano-dollars: 6.5, half up.
        row = entry(
            number,
            input_tokens=3,
            cached_tokens=1,
            output_tokens=2,
            cost_nanos=7,
            end_user="ann" if number % 2 else None,
            tag="shop" if number % 3 else None,
            jwt_id="j1" if number % 4 == 0 else None,
            created_unix_ns=NOW + number * DAY_NS,
            settled_unix_ns=NOW + number * DAY_NS + 1,
        )
        await ledger.settle(row)
    await writer.close()
    try:
        yield database
    finally:
        await database.close()


async def look(database: Database, running: Running | None = None) -> Verification:
    return await verify(database, running)


async def test_right_books_have_no_difference(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as database:
        found = await look(database, Running("", (), NOW + DAY_NS))
        assert (found.entries, found.total_nanos, found.differences) == (8, 56, ())
        assert found.count == 0


UNCONSTRAINED = {
    "sqlite": ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys = ON"),
    "postgresql": (
        "ALTER TABLE entries DROP CONSTRAINT IF EXISTS entries_price_id_fkey",
        "SELECT 1",
    ),
}
BROKEN = {
    "a cost": (f"UPDATE entries SET cost_nanos = 8 WHERE request_id = '{ENTRY}'", ENTRY),
    "a usage": (f"UPDATE entries SET output_tokens = 3 WHERE request_id = '{ENTRY}'", ENTRY),
    "a tier": ("UPDATE prices SET input_rate = 9000000", "the price makes it"),
    "a discount": ("UPDATE prices SET discount_millionths = 500000", "the price makes it"),
    "a model": (f"UPDATE entries SET model = 'a/c' WHERE request_id = '{ENTRY}'", "one of a/b"),
    "no price": (
        f"UPDATE entries SET price_id = 77 WHERE request_id = '{ENTRY}'",
        "price version 77 does not exist",
    ),
    "an entry that is gone": (
        f"DELETE FROM entries WHERE request_id = '{ENTRY}'",
        "its entries are 0 of 0",
    ),
    "a roll-up": ("UPDATE rollups SET cost_nanos = cost_nanos + 1 WHERE tag = ''", "rollups ("),
    "a roll-up's tokens": ("UPDATE rollups SET input_tokens = 0", "rollups ("),
    "no roll-up": ("DELETE FROM rollups WHERE tag = 'shop'", "0 requests of 0"),
    "a roll-up of nothing": (
        "INSERT INTO rollups VALUES "
        "(5, 'acc', 'tok', 'a/b', 'default', '', 1, '', 1, 0, 0, 0, 0, 0)",
        "day 5",
    ),
    "an account's roll-up": ("UPDATE account_rollups SET cost_nanos = 1", "account_rollups ("),
    "no account's roll-up": ("DELETE FROM account_rollups", "account_rollups ("),
    "an end user": ("UPDATE end_user_rollups SET requests = 9", "end_user_rollups ("),
    "no end user": ("DELETE FROM end_user_rollups", "end_user_rollups ("),
    "a purse": ("UPDATE purses SET spent_nanos = 1 WHERE key = 'credit:acc'", "purse credit:acc"),
    "a month": ("UPDATE purses SET spent_nanos = 1 WHERE key LIKE 'month:%'", "purse month:acc:"),
    "no token's purse": ("DELETE FROM purses WHERE key LIKE 'token:%'", "purse token:tok:"),
    "a JWT's purse": ("UPDATE purses SET spent_nanos = 1 WHERE key = 'jwt:j1'", "purse jwt:j1"),
    "no JWT's purse": ("DELETE FROM purses WHERE key = 'jwt:j1'", "purse jwt:j1"),
    "a purse of nobody": ("INSERT INTO purses VALUES ('jwt:x', 5)", "purse jwt:x"),
    "credit": ("UPDATE accounts SET credit_nanos = 5", "its grants are 1000000000000"),
    "a grant": ("UPDATE grants SET nanos = 5", "its grants are 5"),
    "a grant to nobody": (
        "INSERT INTO grants VALUES ('g2', 'nobody', 5, '', '', 1)",
        "The grant g2 is not in the credit",
    ),
    "no account": ("UPDATE accounts SET id = 'moved'", "the account acc, which does not exist"),
    "no token": ("DELETE FROM tokens", "the token tok, which does not exist"),
    "a strange token": (
        "UPDATE tokens SET account_id = 'other'",
        "has entries of the account acc, but belongs to other",
    ),
    "a settled reservation": (
        "INSERT INTO reservations (request_id, account_id, nanos, created_unix_ns) "
        f"VALUES ('{ENTRY}', 'acc', 5, 1)",
        "which is settled",
    ),
    "a reservation of a gateway that is gone": (
        "INSERT INTO reservations (request_id, account_id, nanos, created_unix_ns, gateway) "
        "VALUES ('Rx', 'acc', 5, 1, 'gone')",
        "by the gateway gone",
    ),
    "a reservation that nothing runs for": (
        "INSERT INTO reservations (request_id, account_id, nanos, created_unix_ns) "
        "VALUES ('Ridle', 'acc', 5, 1)",
        "Ridle, which does not run",
    ),
    "a reservation of nobody": (
        "INSERT INTO reservations (request_id, account_id, nanos, created_unix_ns) "
        "VALUES ('Rx', 'nobody', 5, 1)",
        "account nobody, which does not exist",
    ),
    "a lease of a gateway that is gone": (
        "INSERT INTO leases (purse, gateway, nanos) VALUES ('credit:acc', 'gone', 5)",
        "leased to the gateway gone",
    ),
    "two prices at a time": (
        "INSERT INTO prices (id, model, input_rate, cached_rate, output_rate, "
        "valid_from_unix_ns, valid_to_unix_ns) VALUES (2, 'a/b', 1, 1, 1, 5, 9)",
        "valid at the same time",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_is_broken_is_reported(database_url: str, tmp_path: Path, what: str) -> None:
    statement, sentence = BROKEN[what]
    async with books(database_url, tmp_path) as database:
        before, after = UNCONSTRAINED[database.dialect]
        async with database.writing() as connection:
            if database.dialect == "postgresql":
                await connection.execute(
                    text("ALTER TABLE tokens DROP CONSTRAINT IF EXISTS tokens_account_id_fkey")
                )
            for one in (before, statement, after):
                await connection.execute(text(one))
        found = await look(database, Running("", (), NOW))
        assert found.count > 0
        assert any(sentence in one for one in found.differences), found.differences


async def test_a_request_that_runs_and_a_young_reservation_are_no_difference(
    database_url: str, tmp_path: Path
) -> None:
    async with books(database_url, tmp_path) as database:
        writer = ledger_writer(database_url, tmp_path)
        clock = ManualClock()
        ledger = Ledger(writer, database, clock)
        await ledger.start()
        await ledger.reserve(Payer("acc", "tok"), "Rruns", 5)
        await asyncio.sleep(0)
        await writer.close()
        for seconds, held, count in ((10, (), 0), (100, ledger.holding, 0), (100, (), 1)):
            now = clock.unix_ns() + seconds * 10**9
            assert (await look(database, Running("", held, now))).count == count


async def test_writes_that_the_database_refused_are_reported(
    database_url: str, tmp_path: Path
) -> None:
    async with books(database_url, tmp_path) as database:
        Journal(tmp_path / "ledger.refused").append([Settle(entry(99))])
        assert (await look(database)).count == 1


async def test_a_thousand_differences_are_counted_and_a_hundred_shown(
    database_url: str, tmp_path: Path
) -> None:
    async with books(database_url, tmp_path) as database:
        writer = ledger_writer(database_url, tmp_path)
        ledger = Ledger(writer, database, ManualClock())
        await ledger.start()
        await asyncio.gather(*(ledger.settle(entry(n, cost_nanos=5)) for n in range(100, 1100)))
        await writer.close()
        found = await look(database)
        assert (found.entries, found.count) == (1008, 1000)
        assert len(found.differences) == DIFFERENCES_SHOWN


async def test_what_is_booked_meanwhile_is_no_difference(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as database:
        writer = ledger_writer(database_url, tmp_path)
        ledger = Ledger(writer, database, ManualClock())
        await ledger.start()
        done = asyncio.Event()

        async def go_on() -> None:
            number = 1000
            while not done.is_set():
                usage = {"input_tokens": 3, "cached_tokens": 1, "output_tokens": 2}
                await ledger.settle(entry(number, cost_nanos=7, **usage))
                number += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(go_on())
            for _ in range(5):
                assert (await look(database)).differences == ()
            done.set()
        await writer.close()
