"""Prices: what applies, what is planned, what applied; set by the installation's admin."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.access import audit
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.catalog.card_price import CardPrice
from inferd.errors import BadRequest
from inferd.metering.periods import moment_text
from inferd.money import decimal_text
from inferd.storage import accounts
from inferd.storage.rows import PriceRow, PriceSource
from inferd.tasks.base import TaskName

State = Literal["current", "planned", "past", "withdrawn"]


class PriceLine(msgspec.Struct, frozen=True):
    """What one unit costs, before tier and discount."""

    unit: str
    usd_per_million: str
    """An exact decimal."""
    usd: str
    """For one."""


class PriceOut(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model's price."""

    version: int
    model: str
    state: State
    """withdrawn: it was planned and replaced before it began."""
    source: PriceSource
    lines: list[PriceLine]
    priority: str | None
    """Multiplier of the tier; null: the model has none."""
    flex: str | None
    discount: str | None
    """The fraction that is taken off until the version ends."""
    payer: str | None
    valid_from: str
    valid_to: str | None
    set_at: str


class PriceList(msgspec.Struct, frozen=True):
    """Versions of prices."""

    prices: list[PriceOut]


class PriceIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole price; what it does not quote costs nothing."""

    model: Annotated[str, Meta(max_length=256)]
    price: CardPrice
    """As in the `[price]` table of a model card."""
    valid_from: Annotated[datetime, Meta(tz=True)] | None = None
    """Now or later; absent: now."""
    free: bool = False
    """Must be said of a price at which everything costs nothing."""


_DECODER = msgspec.json.Decoder(PriceIn)


def price_routes() -> list[Route]:
    """The routes of this file."""
    path, shape, admin = "/v1/admin/prices", "native", "admin"
    return [
        Route("GET", path, list_prices, admin, shape, "Prices that apply or are planned", None,
              PriceList),
        Route("POST", path, set_price, admin, shape, "Set a price, now or from a moment to come",
              PriceIn, PriceList),
        Route("GET", f"{path}/{{rest}}", price_history, admin, shape,
              "Every version of a model's price", None, PriceList),
        Route("DELETE", f"{path}/{{rest}}", reset_price, admin, shape,
              "Let the model's card set its price again", None, PriceList),
    ]  # fmt: skip


async def list_prices(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/prices."""
    rows: list[PriceRow] = []
    for card in services.catalog.cards():
        rows += await services.prices.history(card.name)
    shown = [one for one in _out(services, rows) if one.state in ("current", "planned")]
    await exchange.respond(200, msgspec.json.encode(PriceList(shown)))


async def price_history(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/prices/{model}: also of a model that the catalogue no longer has."""
    rows = await services.prices.history(exchange.rest)
    if not rows:
        services.catalog.get(exchange.rest)
    await exchange.respond(200, msgspec.json.encode(PriceList(_out(services, rows))))


async def set_price(exchange: Exchange, services: Services) -> None:
    """POST /v1/admin/prices."""
    wire = await inference.read(exchange, services, _DECODER)
    card = services.catalog.get(wire.model)
    await _check(services, wire.price, card.task)
    _check_free(wire)
    at = wire.valid_from
    start = None if at is None else round(at.timestamp() * 1_000_000) * 1000
    async with services.changes.writing() as change:
        await services.prices.set(change.connection, card.name, wire.price, start)
        quoted = {"price": wire.price, "valid_from": wire.valid_from}
        await audit.write(change.connection, exchange.caller, "price.set", card.name, quoted)
        change.touch("prices", card.name)
    await _answer(exchange, services, card.name)


async def reset_price(exchange: Exchange, services: Services) -> None:
    """DELETE /v1/admin/prices/{model}."""
    card = services.catalog.get(exchange.rest)
    async with services.changes.writing() as change:
        await services.prices.give_back(change.connection, card)
        await audit.write(change.connection, exchange.caller, "price.reset", card.name)
        change.touch("prices", card.name)
    await _answer(exchange, services, card.name)


async def _answer(exchange: Exchange, services: Services, model: str) -> None:
    versions = _out(services, await services.prices.history(model))
    living = [one for one in versions if one.state in ("current", "planned")]
    await exchange.respond(200, msgspec.json.encode(PriceList(living)))


async def _check(services: Services, quoted: CardPrice, task: TaskName) -> None:
    try:
        problems = quoted.problems(task)
    except ValueError as error:
        raise BadRequest(f"{error}", param="price") from error
    for problem in problems:
        raise BadRequest(f"The price is not valid: {problem}", param="price")
    if quoted.payer is not None:
        async with services.database.reading() as connection:
            if await accounts.by_id(connection, quoted.payer) is None:
                raise BadRequest("There is no such account to pay it.", param="price.payer")


def _check_free(wire: PriceIn) -> None:
    free = not any((*wire.price.rates(), wire.price.unit_rate()))
    if free and not wire.free:
        raise BadRequest(
            'At this price everything costs nothing. Say "free": true if that is meant.',
            param="free",
        )
    if wire.free and not free:
        raise BadRequest("The price is free and quotes a rate.", param="free")


def _out(services: Services, rows: Sequence[PriceRow]) -> list[PriceOut]:
    now = services.clock.unix_ns()
    return [_one(row, now) for row in rows]


def _state(row: PriceRow, now_unix_ns: int) -> State:
    begins, ends = row.valid_from_unix_ns, row.valid_to_unix_ns
    if ends is not None and ends <= begins:
        return "withdrawn"
    if begins > now_unix_ns:
        return "planned"
    return "current" if ends is None or ends > now_unix_ns else "past"


def _one(row: PriceRow, now_unix_ns: int) -> PriceOut:
    ends = row.valid_to_unix_ns
    return PriceOut(
        version=row.id,
        model=row.model,
        state=_state(row, now_unix_ns),
        source=row.source,
        lines=_lines(row),
        priority=_multiplier(row.priority_millionths),
        flex=_multiplier(row.flex_millionths),
        discount=_multiplier(row.discount_millionths or None),
        payer=row.payer_account_id,
        valid_from=moment_text(row.valid_from_unix_ns),
        valid_to=None if ends is None else moment_text(ends),
        set_at=moment_text(row.set_unix_ns),
    )


def _lines(row: PriceRow) -> list[PriceLine]:
    rates = {
        "input_tokens": row.input_rate,
        "cached_tokens": row.cached_rate,
        "output_tokens": row.output_rate,
    }
    if row.unit is not None:
        rates = {row.unit: row.unit_rate, **{unit: rate for unit, rate in rates.items() if rate}}
    return [
        PriceLine(unit, decimal_text(rate, 9), decimal_text(rate, 15))
        for unit, rate in rates.items()
    ]


def _multiplier(millionths: int | None) -> str | None:
    return None if millionths is None else decimal_text(millionths, 6)
