"""Prices: what one million units cost, with a version that ledger entries point to."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from inferd.catalog.card import ModelCard
from inferd.clock import Clock
from inferd.errors import Unavailable
from inferd.money import Rate
from inferd.storage import prices
from inferd.storage.database import Database
from inferd.storage.prices import NewPrice
from inferd.storage.rows import PriceRow


class Price(msgspec.Struct, frozen=True):
    """One version of a model's price."""

    id: int
    """Row id in `prices`: the version that an entry stores."""
    model: str
    input: Rate
    cached: Rate
    output: Rate
    unit: Rate = Rate(0)
    """Of the task's own unit."""
    tiers: dict[str, int] = {}
    """Tier → what everything is multiplied with, in millionths. A tier that is not here costs 1."""


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
    )


class PriceBook:
    """The current price of each model, in memory."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._current: dict[str, Price] = {}

    async def sync(self, cards: Iterable[ModelCard]) -> None:
        """Begin a new version where a card's rates differ from the current one."""
        async with self._database.writing() as connection:
            stored = {row.model: row for row in await prices.current(connection)}
            for card in cards:
                row = stored.get(card.name)
                tiers = card.tiers()
                new = NewPrice(
                    *card.rates(), tiers.get("priority"), tiers.get("flex"), card.unit_rate()
                )
                if row is None or prices.terms(row) != new:
                    now = self._clock.unix_ns()
                    row = await prices.replace(connection, card.name, new, now)
                self._current[card.name] = price_of(row)

    def current(self, model: str) -> Price:
        """The price that applies now. A model without one is not live: Unavailable."""
        price = self._current.get(model)
        if price is None:
            raise Unavailable(f"The model {model} has no price and is not live.")
        return price
