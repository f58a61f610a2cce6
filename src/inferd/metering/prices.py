"""Prices: what one million units cost, with a version that ledger entries point to.

Versions of a model follow one another. A card sets the price until an admin does; what an admin
set stays, whatever the card says, until he gives the price back to the card.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from inferd.catalog.card import ModelCard
from inferd.catalog.card_price import CardPrice
from inferd.clock import Clock
from inferd.errors import BadRequest, Unavailable
from inferd.money import Rate
from inferd.storage import prices
from inferd.storage.database import Database
from inferd.storage.prices import Connection, NewPrice, Piece
from inferd.storage.rows import PriceRow, PriceSource
from inferd.tasks.base import Tier, Unit

ONE = 1_000_000
"""A multiplier of 1, in millionths."""


class Price(msgspec.Struct, frozen=True):
    """One version of a model's price."""

    id: int
    """Row id in `prices`: the version that an entry stores."""
    model: str
    input: Rate
    cached: Rate
    output: Rate
    unit: Rate = Rate(0)
    """Of `billed_unit`."""
    tiers: dict[str, int] = {}
    """Tier → what everything is multiplied with, in millionths. A tier that is not here costs 1."""
    billed_unit: Unit | None = None
    """What is billed besides tokens."""
    discount: int = 0
    """What is taken off everything, in millionths."""
    valid_from_unix_ns: int = 0
    valid_to_unix_ns: int | None = None
    source: PriceSource = "card"
    payer_account_id: str | None = None
    """Who pays `uptime_seconds`."""

    def valid(self, now_unix_ns: int) -> bool:
        """True from its start up to, not including, its end."""
        ends = self.valid_to_unix_ns
        return self.valid_from_unix_ns <= now_unix_ns and (ends is None or now_unix_ns < ends)

    def paid_tier(self, asked: Tier) -> Tier:
        """The tier that applies: a model that lacks the one asked for serves the default."""
        return asked if asked in self.tiers else "default"

    def discount_ends_unix_ns(self) -> int | None:
        """When the discount ends; None: never, or there is none."""
        return self.valid_to_unix_ns if self.discount else None


def price_of(row: PriceRow) -> Price:
    """The price that a row holds."""
    tiers = {"priority": row.priority_millionths, "flex": row.flex_millionths}
    return Price(
        row.id,
        row.model,
        Rate(row.input_rate),
        Rate(row.cached_rate),
        Rate(row.output_rate),
        Rate(row.unit_rate),
        {tier: value for tier, value in tiers.items() if value is not None},
        msgspec.convert(row.unit, Unit | None),
        row.discount_millionths,
        row.valid_from_unix_ns,
        row.valid_to_unix_ns,
        row.source,
        row.payer_account_id,
    )


class PriceBook:
    """The prices that are valid now or planned, in memory."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._versions: dict[str, tuple[Price, ...]] = {}

    async def sync(self, cards: Iterable[ModelCard]) -> None:
        """Begin a new version where a card says something new and no admin has set the price."""
        async with self._database.writing() as connection:
            await prices.alone(connection)
            now = self._clock.unix_ns()
            stored = _by_model(await prices.living(connection, now))
            for card in cards:
                rows = stored.get(card.name, [])
                end = next((r.valid_from_unix_ns for r in rows if r.source == "admin"), None)
                if end is not None and end <= now:
                    continue
                quoted = card.price or CardPrice()
                wanted = pieces(quoted, now, end)
                if not _same(rows, wanted, now):
                    await prices.replace(connection, card.name, wanted, "card", now)
        await self.reload()

    async def reload(self) -> None:
        """Read the prices again: somebody has changed one."""
        now = self._clock.unix_ns()
        async with self._database.reading() as connection:
            stored = _by_model(await prices.living(connection, now))
        self._versions = {
            model: tuple(price_of(row) for row in rows) for model, rows in stored.items()
        }

    async def hear(self, _: str | None) -> None:
        """A price was changed, here or at another gateway."""
        await self.reload()

    def current(self, model: str) -> Price:
        """The price that applies now. A model without one is not live: Unavailable."""
        now = self._clock.unix_ns()
        for price in self._versions.get(model, ()):
            if price.valid(now):
                return price
        raise Unavailable(f"The model {model} has no price and is not live.")

    def planned(self, model: str) -> tuple[Price, ...]:
        """The versions to come, the next one first."""
        now = self._clock.unix_ns()
        versions = self._versions.get(model, ())
        return tuple(price for price in versions if price.valid_from_unix_ns > now)

    async def set(
        self,
        connection: Connection,
        model: str,
        quoted: CardPrice,
        from_unix_ns: int | None = None,
    ) -> None:
        """Set a price, now or from a moment to come; what was planned after it is withdrawn.

        It applies once the transaction is committed and `reload` called, on every gateway. Raises
        BadRequest for a moment that is past.
        """
        await self._replace(connection, (model, quoted, "admin"), from_unix_ns)

    async def give_back(self, connection: Connection, card: ModelCard) -> None:
        """Let the card set the price again, from now on; else as `set`."""
        await self._replace(connection, (card.name, card.price or CardPrice(), "card"), None)

    async def history(self, model: str) -> Sequence[PriceRow]:
        """Every version of a model, in the order in which they were set."""
        async with self._database.reading() as connection:
            return await prices.of_model(connection, model)

    async def _replace(
        self,
        connection: Connection,
        new: tuple[str, CardPrice, PriceSource],
        from_unix_ns: int | None,
    ) -> None:
        model, quoted, source = new
        await prices.alone(connection)
        now = self._clock.unix_ns()
        start = now if from_unix_ns is None else from_unix_ns
        if start < now:
            raise BadRequest("A price begins now or later; history stays.", param="valid_from")
        await prices.replace(connection, model, pieces(quoted, start, None), source, now)


def pieces(quoted: CardPrice, start_unix_ns: int, end_unix_ns: int | None) -> list[Piece]:
    """The versions of a quoted price in [start, end): a discount that ends makes two."""
    fraction, stop = quoted.discount_millionths(), quoted.discount_ends_unix_ns()
    tiers = quoted.tiers()
    full = NewPrice(
        *quoted.rates(),
        tiers.get("priority"),
        tiers.get("flex"),
        quoted.unit_rate(),
        quoted.unit(),
        0,
        quoted.payer,
    )
    if not fraction or (stop is not None and stop <= start_unix_ns):
        return [Piece(full, start_unix_ns, end_unix_ns)]
    less = full._replace(discount_millionths=fraction)
    if stop is None or (end_unix_ns is not None and end_unix_ns <= stop):
        return [Piece(less, start_unix_ns, end_unix_ns)]
    return [Piece(less, start_unix_ns, stop), Piece(full, stop, end_unix_ns)]


def _by_model(rows: Sequence[PriceRow]) -> dict[str, list[PriceRow]]:
    return {model: list(found) for model, found in groupby(rows, key=lambda row: row.model)}


def _same(rows: Sequence[PriceRow], wanted: Sequence[Piece], now_unix_ns: int) -> bool:
    """True if the card's versions say this already. The first began some time ago."""
    stored = [
        Piece(prices.terms(row), max(row.valid_from_unix_ns, now_unix_ns), row.valid_to_unix_ns)
        for row in rows
        if row.source == "card"
    ]
    return stored == list(wanted)
