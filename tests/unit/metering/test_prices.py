"""Prices: what applies when, who set it, and history that reprices to the last digit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from inferd.access.changes import Changes
from inferd.access.follow_changes import FollowChanges
from inferd.catalog.card import ModelCard
from inferd.catalog.card_price import CardPrice
from inferd.clock import ManualClock, SystemClock
from inferd.errors import BadRequest, Unavailable
from inferd.metering.cost import cost
from inferd.metering.prices import PriceBook, price_of
from inferd.storage.database import Database
from inferd.tasks.base import Usage
from tests.awake import Stopwatch
from tests.gateway import echo_card
from tests.unit.storage.test_ledger_writer import make_database

CARD = echo_card()
MODEL = CARD.name
USED = Usage(1_000_003, 7, 5)


class Shop:
    """A price book over a database, with a clock to turn."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.database = Database(path)
        self.book = PriceBook(self.database, self.clock)

    async def set(self, quoted: CardPrice, in_seconds: float | None = None) -> None:
        start = self.clock.unix_ns()
        at = None if in_seconds is None else start + round(in_seconds * 1e9)
        async with self.database.writing() as connection:
            await self.book.set(connection, MODEL, quoted, at)
        await self.book.reload()

    async def give_back(self, card: ModelCard) -> None:
        async with self.database.writing() as connection:
            await self.book.give_back(connection, card)
        await self.book.reload()

    async def restart(self, card: ModelCard) -> None:
        self.clock.advance(1)
        self.book = PriceBook(self.database, self.clock)
        await self.book.sync([card])

    @property
    def input(self) -> int:
        return self.book.current(MODEL).input

    def later(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self.clock.unix_ns() / 1e9, UTC) + timedelta(seconds=seconds)


@asynccontextmanager
async def shop_in(tmp_path: Path) -> AsyncGenerator[Shop]:
    make_database(tmp_path / "inferd.db")
    shop = Shop(tmp_path / "inferd.db")
    await shop.book.sync([CARD])
    yield shop
    await shop.database.close()


async def test_a_card_that_says_the_same_begins_no_version(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        before = shop.book.current(MODEL)
        await shop.restart(CARD)
        assert shop.book.current(MODEL) == before


async def test_a_changed_card_begins_a_version(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        before = shop.book.current(MODEL)
        await shop.restart(echo_card(price=CardPrice(input="9")))
        assert shop.input == 9_000_000_000
        assert shop.book.current(MODEL).id > before.id


async def test_what_an_admin_set_stays_until_he_gives_it_back(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        shop.clock.advance(1)
        await shop.set(CardPrice(input="3", output="4"))
        await shop.restart(echo_card(price=CardPrice(input="9")))
        assert shop.input == 3_000_000_000
        shop.clock.advance(1)
        await shop.give_back(CARD)
        assert shop.input == 1_000_000_000
        await shop.restart(echo_card(price=CardPrice(input="9")))
        assert shop.input == 9_000_000_000


async def test_a_planned_price_begins_at_its_moment_and_not_before(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        await shop.set(CardPrice(input="5"), in_seconds=60)
        shop.clock.advance(59.5)
        assert shop.input == 1_000_000_000
        assert [price.input for price in shop.book.planned(MODEL)] == [5_000_000_000]
        shop.clock.advance(0.5)
        assert shop.input == 5_000_000_000
        assert shop.book.planned(MODEL) == ()


async def test_a_changed_card_leaves_what_an_admin_planned(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        await shop.set(CardPrice(input="5"), in_seconds=60)
        await shop.restart(echo_card(price=CardPrice(input="9")))
        assert shop.input == 9_000_000_000
        shop.clock.advance(60)
        assert shop.input == 5_000_000_000


async def test_a_new_price_withdraws_what_was_planned_after_it(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        await shop.set(CardPrice(input="5"), in_seconds=60)
        shop.clock.advance(1)
        await shop.set(CardPrice(input="7"))
        shop.clock.advance(100)
        assert shop.input == 7_000_000_000
        rows = await shop.book.history(MODEL)
        assert [row.input_rate // 10**9 for row in rows] == [1, 5, 7]
        assert rows[1].valid_from_unix_ns == rows[1].valid_to_unix_ns


async def test_history_stays(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        with pytest.raises(BadRequest):
            await shop.set(CardPrice(input="5"), in_seconds=-1)


@pytest.mark.parametrize("source", ["card", "admin"])
async def test_a_discount_ends_by_itself(tmp_path: Path, source: str) -> None:
    async with shop_in(tmp_path) as shop:
        quoted = CardPrice(input="1", discount="0.25", discount_ends=shop.later(60))
        if source == "admin":
            await shop.set(quoted)
        else:
            await shop.restart(echo_card(price=quoted))
        price = shop.book.current(MODEL)
        assert cost(Usage(10**6), price) == 750_000_000
        assert (
            price.discount_ends_unix_ns()
            == shop.clock.unix_ns() // 10**9 * 10**9 + (60 if source == "admin" else 59) * 10**9
        )
        await shop.restart(echo_card(price=quoted))
        assert shop.book.current(MODEL) == price
        shop.clock.advance(60)
        assert cost(Usage(10**6), shop.book.current(MODEL)) == 1_000_000_000
        await shop.restart(echo_card(price=quoted))
        assert cost(Usage(10**6), shop.book.current(MODEL)) == 1_000_000_000


async def test_history_reprices_to_the_last_digit(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        paid: list[tuple[int, int]] = []
        for number in range(1, 30):
            await shop.set(
                CardPrice(
                    input=f"0.{number}",
                    cached=f"0.0{number}",
                    output=f"{number}.123456789",
                    flex=f"0.{number}",
                    discount=f"0.0{number}",
                )
            )
            price = shop.book.current(MODEL)
            paid.append((price.id, cost(USED, price, "flex")))
            shop.clock.advance(number)
        rows = {row.id: row for row in await shop.book.history(MODEL)}
        assert [(id_, cost(USED, price_of(rows[id_]), "flex")) for id_, _ in paid] == paid
        assert len({nanos for _, nanos in paid}) == len(paid)


async def test_versions_follow_one_another_without_gap_or_overlap(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        steps = [(None, 1), (50, 2), (20, 3), (None, 4), (10, 5), (200, 6)]
        for delay, number in steps:
            shop.clock.advance(5)
            await shop.set(
                CardPrice(input=str(number), discount="0.1", discount_ends=shop.later(30)), delay
            )
            await shop.restart(echo_card(price=CardPrice(input=f"{number}.5")))
        spans = sorted(
            (row.valid_from_unix_ns, row.valid_to_unix_ns)
            for row in await shop.book.history(MODEL)
            if row.valid_from_unix_ns != row.valid_to_unix_ns
        )
        assert [end for _, end in spans] == [*(start for start, _ in spans[1:]), None]


async def test_a_model_without_a_price_is_not_live(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        with pytest.raises(Unavailable):
            shop.book.current("a/unknown")


async def test_a_price_set_at_one_gateway_applies_at_all_within_a_second(
    database_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        books: list[tuple[PriceBook, Changes]] = []
        for name in ("a", "b", "c"):
            database = Database(database_url, directory=tmp_path)
            stack.push_async_callback(database.close)
            changes, book = Changes(database), PriceBook(database, SystemClock())
            await book.sync([CARD])
            changes.listen("prices", book.hear)
            follow = FollowChanges(changes, database, None, "prices-test", name)
            await follow.open()
            stack.push_async_callback(follow.close)
            books.append((book, changes))
        book, changes = books[0]
        async with changes.writing() as change:
            await book.set(change.connection, MODEL, CardPrice(input="42"))
            change.touch("prices", MODEL)
        clock = Stopwatch()
        while any(other.current(MODEL).input != 42_000_000_000 for other, _ in books):
            assert clock.seconds() < 1
            await asyncio.sleep(0.01)


async def test_gateways_that_start_at_once_begin_one_version(
    database_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        books: list[PriceBook] = []
        for _ in range(6):
            database = Database(database_url, directory=tmp_path)
            stack.push_async_callback(database.close)
            books.append(PriceBook(database, SystemClock()))
        await asyncio.gather(*(book.sync([CARD]) for book in books))
        assert len(await books[0].history(MODEL)) == 1
        assert len({book.current(MODEL).id for book in books}) == 1
