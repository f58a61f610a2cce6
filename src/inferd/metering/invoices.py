"""Invoices: a month of usage by model and unit, exact to the nano-dollar.

Nothing is stored: roll-ups and price versions never change, so neither does the invoice of a month
that is final. What the database gets later, from a journal, counts in the month in which it does.
Every request was rounded by itself to whole nano-dollars, a line is rounded once; the difference is
a line of its own, so that the lines sum up to what was booked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from inferd.metering.cost import Part, lines
from inferd.metering.periods import DAY_NS, Month, month_of_day
from inferd.metering.prices import ONE, Price, price_of
from inferd.money import NanoUsd, Rate
from inferd.storage import prices, rollups
from inferd.storage.database import Database
from inferd.storage.ledger_statements import LATE_NS
from inferd.storage.rollups import LineSum, Slice, View
from inferd.tasks.base import Usage

FINAL_AFTER_NS = 2 * LATE_NS
"""After the end of a month; gateways' clocks may differ by the half of it."""


class InvoiceLine(msgspec.Struct, frozen=True):
    """So many units of one kind of one model, at one price version and tier."""

    token_id: str
    """Empty: of all tokens."""
    model: str
    tier: str
    part: Part
    units_micro: int
    """Millionths of the unit."""
    rate: Rate
    """Before tier and discount."""
    tier_millionths: int
    discount_millionths: int
    price_id: int
    first_day: int
    last_day: int
    cost_nanos: NanoUsd


class Invoice(msgspec.Struct, frozen=True):
    """What an account used in a month."""

    month: Month
    final: bool
    """The month is over, and nothing more is booked to it."""
    lines: Sequence[InvoiceLine]
    rounding_nanos: int
    """What the single requests were rounded to, less what the lines are rounded to."""
    requests: int
    total_nanos: int


def is_final(month: Month, now_unix_ns: int) -> bool:
    """True once nothing more is booked to the month."""
    return now_unix_ns >= month.after_day * DAY_NS + FINAL_AFTER_NS


async def invoice(
    database: Database, view: View, month: Month, now_unix_ns: int, *, by_token: bool = False
) -> Invoice:
    """The invoice of what is seen of a month."""
    part = Slice(view, month.first_day, month.after_day)
    async with database.reading() as connection:
        sums = await rollups.lines(connection, part, by_token=by_token)
        asked = [one.price_id for one in sums]
        versions = {row.id: price_of(row) for row in await prices.by_ids(connection, asked)}
    found = [line for one in sums for line in _lines(one, versions)]
    total = sum(one.cost_nanos for one in sums)
    return Invoice(
        month,
        is_final(month, now_unix_ns),
        found,
        total - sum(line.cost_nanos for line in found),
        sum(one.requests for one in sums),
        total,
    )


async def months(database: Database, view: View, now_unix_ns: int) -> Sequence[Month]:
    """The months from the first usage up to this one, oldest first; empty before any usage."""
    async with database.reading() as connection:
        first = await rollups.first_day(connection, view)
    if first is None:
        return []
    month, last = month_of_day(first), month_of_day(now_unix_ns // DAY_NS)
    found: list[Month] = []
    while month <= last:
        found.append(month)
        month = month.plus(1)
    return found


def _lines(one: LineSum, versions: Mapping[int, Price]) -> list[InvoiceLine]:
    price = versions.get(one.price_id)
    if price is None:
        # `usage verify` names it; here the sum goes with the rounding.
        return []
    usage = Usage(one.input_tokens, one.cached_tokens, one.output_tokens, quantity=one.quantity)
    return [
        InvoiceLine(
            one.token_id,
            one.model,
            one.tier,
            line.part,
            line.units_micro,
            line.rate,
            price.tiers.get(one.tier, ONE),
            price.discount,
            one.price_id,
            one.first_day,
            one.last_day,
            line.cost_nanos,
        )
        for line in lines(usage, price, one.tier)
    ]
