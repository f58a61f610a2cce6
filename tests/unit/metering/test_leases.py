"""One budget, several gateways on one PostgreSQL: each spends what it has leased, never more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from inferd.clock import SystemClock
from inferd.errors import PaymentRequired, Unavailable
from inferd.metering.ledger import Ledger
from inferd.metering.payer import Payer
from inferd.storage import leases
from inferd.storage.database import Database
from inferd.storage.gateways import every, forget
from inferd.storage.leases import beat
from inferd.storage.postgres import connect
from inferd.storage.postgres_writer import PostgresWriter
from inferd.storage.rows import GrantRow
from tests.servers import PostgresServer
from tests.unit.storage.test_ledger_writer import entry

DOLLAR = 10**9
CENTS = 50_000_000
PAYER = Payer("acc", "tok")
_FILL = """
INSERT INTO accounts (id, name, created_unix_ns) VALUES ('acc', 'acc', 1);
INSERT INTO tokens (id, account_id, name, digest, fragment, scopes, created_unix_ns)
VALUES ('tok', 'acc', 'tok', 'tok', '', '', 1);
INSERT INTO prices (id, model, input_rate, cached_rate, output_rate, valid_from_unix_ns)
VALUES (1, 'a/b', 1, 1, 1, 0);
"""
_SPENT = "SELECT spent_nanos FROM purses WHERE key = 'credit:acc'"


class Gateways:
    """Ledgers of several gateways over one database."""

    def __init__(self, url: str, folder: Path, stack: AsyncExitStack) -> None:
        self.url = url
        self._folder = folder
        self._stack = stack
        self._number = 0
        self.database = Database(url, directory=folder)
        stack.push_async_callback(self.database.close)

    async def start(self, name: str) -> Ledger:
        """A gateway, with a directory of its own."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        database = Database(self.url, directory=folder)
        self._stack.push_async_callback(database.close)
        writer = PostgresWriter(self.url, folder)
        self._stack.push_async_callback(writer.close)
        ledger = Ledger(writer, database, SystemClock(), name)
        await ledger.start()
        self._stack.push_async_callback(ledger.close)
        return ledger

    async def pay(self, ledger: Ledger, held: int, cost: int) -> bool:
        """A request from its reservation to its settlement."""
        request_id = await self.hold(ledger, held)
        if request_id is None:
            return False
        await ledger.settle(entry(int(request_id[1:]), cost_nanos=cost, created_unix_ns=self.now))
        return True

    async def hold(self, ledger: Ledger, held: int) -> str | None:
        """Reserve; None if it was refused."""
        self._number += 1
        request_id = entry(self._number).request_id
        self.now = SystemClock().unix_ns()
        try:
            await ledger.reserve(PAYER, request_id, held, at_unix_ns=self.now)
        except PaymentRequired:
            return None
        return request_id

    async def look(self, sql: str) -> Any:
        """One value."""
        connection = await connect(self.url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    async def balance(self) -> int:
        """Of the credit, as the database has it; what is leased counts as gone."""
        return await self.look(
            "SELECT (SELECT credit_nanos FROM accounts WHERE id = 'acc') - COALESCE((SELECT "
            "spent_nanos FROM purses WHERE key = 'credit:acc'), 0) - COALESCE((SELECT "
            "SUM(nanos) FROM leases WHERE purse = 'credit:acc'), 0)::bigint"
        )


@pytest.fixture
async def gateways(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Gateways]:
    url = await postgres.migrated()
    for statement in _FILL.split(";"):
        await postgres.run(statement, url)
    async with AsyncExitStack() as stack:
        yield Gateways(url, tmp_path, stack)


async def test_a_dollar_admits_twenty_of_two_hundred_over_four_gateways(
    gateways: Gateways,
) -> None:
    ledgers = [await gateways.start(f"g{n}") for n in range(4)]
    await ledgers[0].set_credit("acc", DOLLAR)
    refusals: list[str] = []

    async def ask(ledger: Ledger, number: int) -> str | None:
        request_id = entry(number).request_id
        now = SystemClock().unix_ns()
        try:
            await ledger.reserve(PAYER, request_id, CENTS, at_unix_ns=now)
        except PaymentRequired as refused:
            refusals.append(refused.message)
            return None
        return request_id

    held = await asyncio.gather(*(ask(ledgers[n % 4], n) for n in range(200)))
    assert sum(one is not None for one in held) == 20
    assert len(refusals) == 180
    assert all("The balance is $0" in message for message in refusals), set(refusals)
    assert await gateways.balance() == 0
    now = SystemClock().unix_ns()
    for number, one in enumerate(held):
        if one is not None:
            row = entry(number, cost_nanos=CENTS, created_unix_ns=now)
            await ledgers[number % 4].settle(row)
            assert await gateways.balance() >= 0
    assert await gateways.look(_SPENT) == DOLLAR
    assert await gateways.look("SELECT SUM(nanos) FROM leases") == 0


async def test_crumbs_that_lie_on_four_gateways_pay_for_one_request(gateways: Gateways) -> None:
    ledgers = [await gateways.start(f"g{n}") for n in range(4)]
    await ledgers[0].set_credit("acc", 1000)
    assert [await gateways.pay(one, 240, 10) for one in ledgers] == [True] * 4
    assert await gateways.pay(ledgers[2], 960, 960)
    assert await gateways.balance() == 0
    assert not await gateways.pay(ledgers[1], 1, 1)


async def test_what_others_reserve_is_not_recalled(gateways: Gateways) -> None:
    one, two = [await gateways.start(f"g{n}") for n in range(2)]
    await one.set_credit("acc", 1000)
    held = await gateways.hold(one, 600)
    assert held is not None
    with pytest.raises(PaymentRequired, match=r"\$0.0000004; "):
        await two.reserve(PAYER, "Rx", 401)
    assert await gateways.pay(two, 400, 400)
    one.shrink(held, 100)
    assert await gateways.pay(two, 500, 500)
    one.release(held)
    assert await gateways.pay(two, 100, 100)
    assert not await gateways.pay(one, 1, 1)


async def test_a_warm_gateway_leases_ahead_and_asks_nobody(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await gateways.start("g1")
    await one.set_credit("acc", 1000)
    assert await gateways.pay(one, 1, 1)
    monkeypatch.delattr(Database, "reading")
    monkeypatch.delattr(Database, "writing")
    for _ in range(124):
        assert await gateways.pay(one, 1, 1)


async def test_the_lease_of_a_dead_gateway_counts_as_spent_until_it_is_back(
    gateways: Gateways,
) -> None:
    one, two = [await gateways.start(f"g{n}") for n in range(2)]
    await one.set_credit("acc", 1000)
    assert await gateways.pay(one, 300, 100)
    left = await gateways.look("SELECT nanos FROM leases WHERE purse = 'credit:acc'")
    # As if it had died: it answers nobody, and nobody has seen it for a while.
    one._leases._heard = lambda _: None  # pyright: ignore
    for task in one._leases._tasks:  # pyright: ignore
        task.cancel()
    await gateways.look("UPDATE gateways SET seen_unix_ns = 0 WHERE id = 'g0' RETURNING 1")
    assert await gateways.pay(two, 900 - left, 900 - left)
    assert not await gateways.pay(two, 1, 1)
    again = await gateways.start("g0")
    assert await gateways.pay(two, left, left)
    assert not await gateways.pay(again, 1, 1)
    with pytest.raises(Unavailable, match="Another process runs as gateway g0"):
        await one.reserve(PAYER, "Ry", 5000)


async def test_the_lease_of_a_gateway_that_is_given_up_is_free_and_its_process_is_told_to_stop(
    gateways: Gateways,
) -> None:
    one, lost = [await gateways.start(name) for name in ("one", "lost")]
    await one.set_credit("acc", DOLLAR)
    assert await gateways.hold(lost, CENTS) is not None
    async with gateways.database.writing() as connection:
        (_, told) = sorted(await every(connection), key=lambda row: row.leased_nanos)
        assert (told.id, told.leased_nanos >= CENTS) == ("lost", True)
        await forget(connection, "lost", SystemClock().unix_ns())
    assert await gateways.balance() == DOLLAR
    assert [await gateways.pay(one, CENTS, CENTS) for _ in range(21)] == [True] * 20 + [False]
    with pytest.raises(Unavailable, match="must stop"):
        async with gateways.database.writing() as connection:
            await beat(connection, "lost", lost.epoch_unix_ns)


async def test_a_limit_that_is_lowered_takes_back_what_is_leased(gateways: Gateways) -> None:
    one, two = [await gateways.start(f"g{n}") for n in range(2)]
    await one.set_monthly_limit("acc", 1000)
    assert await gateways.pay(one, 100, 10)
    assert await gateways.pay(two, 100, 10)
    await two.set_monthly_limit("acc", 100)
    # The other one hears of it from the news of changes.
    await one.refresh("acc")
    assert not await gateways.pay(one, 81, 81)
    assert await gateways.pay(one, 40, 40)
    assert await gateways.pay(two, 40, 40)
    assert not await gateways.pay(two, 1, 1)


async def test_a_limit_of_a_token_and_credit_of_its_account_are_taken_together(
    gateways: Gateways,
) -> None:
    one, two = [await gateways.start(f"g{n}") for n in range(2)]
    await one.grant(GrantRow("g", "acc", 1000, "", "", 1))
    await one.set_token_monthly_limit("acc", "tok", 600)
    assert await gateways.pay(one, 300, 300)
    assert not await gateways.pay(two, 301, 301)
    assert await gateways.pay(two, 300, 300)
    assert await gateways.balance() >= 0
    other = Payer("acc", "tok2")
    await one.reserve(other, "Rz", 400)
    with pytest.raises(PaymentRequired):
        await two.reserve(other, "Rzz", 1)


async def test_a_gateway_whose_answer_broke_answers_the_next_time(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd.metering.leases.BEAT_SECONDS", 0.05)
    recalled, broken = leases.recalled, list[int]()

    async def breaks(*given: Any) -> Sequence[str]:
        if len(broken) < 2:
            broken.append(1)
            raise RuntimeError("nobody foresaw it")
        return await recalled(*given)

    monkeypatch.setattr(leases, "recalled", breaks)
    one, two = [await gateways.start(f"g{n}") for n in range(2)]
    await one.set_credit("acc", 1000)
    assert await gateways.pay(one, 50, 50)
    assert await gateways.pay(two, 950, 950)
    assert len(broken) == 2


async def test_grants_of_several_gateways_at_once_all_count(gateways: Gateways) -> None:
    ledgers = [await gateways.start(f"g{n}") for n in range(4)]
    await asyncio.gather(
        *(
            ledger.grant(GrantRow(f"grant{number}.{turn}", "acc", 10, "", "", 1))
            for number, ledger in enumerate(ledgers)
            for turn in range(5)
        )
    )
    assert await gateways.look("SELECT credit_nanos FROM accounts") == 200
    assert await gateways.pay(ledgers[1], 200, 200)


async def test_a_waiting_request_that_is_cancelled_leaves_nothing_taken(
    gateways: Gateways,
) -> None:
    one = await gateways.start("g1")
    await one.set_credit("acc", 1000)
    for turns in range(1, 40, 4):
        waiting = asyncio.ensure_future(one.reserve(PAYER, f"R{turns}", 1000))
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        if waiting.cancel():
            with pytest.raises(asyncio.CancelledError):
                await waiting
        else:
            one.release(f"R{turns}")
        await one.reserve(PAYER, "R", 1000)
        one.release("R")
        await one._leases.give_back(["credit:acc"])  # pyright: ignore


async def test_any_mix_of_endings_on_four_gateways_keeps_the_sum(gateways: Gateways) -> None:
    dice = random.Random(7)
    ledgers = [await gateways.start(f"g{n}") for n in range(4)]
    await ledgers[0].set_credit("acc", 100_000)
    spent, done = 0, False

    async def watch() -> None:
        while not done:
            assert await gateways.balance() >= 0

    async def client(ledger: Ledger) -> None:
        nonlocal spent
        for _ in range(25):
            nanos = dice.randrange(1, 4000)
            held = await gateways.hold(ledger, nanos)
            if held is None:
                continue
            await asyncio.sleep(dice.random() * 0.01)
            if dice.random() < 0.3:
                ledger.release(held)
                continue
            cost = dice.randrange(nanos + 1)
            row = entry(int(held[1:]), cost_nanos=cost, created_unix_ns=gateways.now)
            assert await ledger.settle(row)
            spent += cost

    watcher = asyncio.ensure_future(watch())
    await asyncio.gather(*(client(ledger) for ledger in ledgers for _ in range(4)))
    done = True
    await watcher
    assert await gateways.look(_SPENT) == spent
    left = 100_000 - spent
    assert await gateways.pay(ledgers[3], left, left)
    assert not await gateways.pay(ledgers[0], 1, 1)
