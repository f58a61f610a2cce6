"""Usage by month in DeepInfra's shapes (deepinfra-api 12).

Amounts are whole cents; beside them stand exact nano-dollars, which DeepInfra does not have.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.manage.query import Query, view_of
from inferd.api.native.pricing import cents_per_unit
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import BadRequest, Gone, NotFound
from inferd.metering.invoices import Invoice, InvoiceLine, invoice, months
from inferd.metering.periods import DAY_SECONDS, Month, month_at, read_month
from inferd.metering.prices import ONE
from inferd.storage import rollups
from inferd.storage.rollups import Slice, View
from inferd.tasks.base import MICRO

MONTHS_MAX = 120
NANOS_PER_CENT = 10_000_000
_YEAR_2200 = 7_258_118_400

_TYPES = {
    "input_tokens": "tokens",
    "cached_tokens": "tokens",
    "output_tokens": "tokens",
    "input_seconds": "input_length",
    "input_characters": "input_character_length",
    "image_units": "image_units",
    "output_seconds": "output_length",
    "frame_units": "frame_units",
    "compute_seconds": "time",
    "uptime_seconds": "uptime",
}
"""What is counted → DeepInfra's name of the pricing."""


class ModelUsed(msgspec.Struct, frozen=True):
    """A model of a line."""

    provider: str
    model_name: str
    task: str
    plan_id: str | None = None
    private: bool = False
    contract: str | None = None


class Interval(msgspec.Struct, frozen=True):
    """Unix milliseconds, both inclusive."""

    fr: int
    to: int


class UsageItem(msgspec.Struct, frozen=True, kw_only=True):
    """So many units of a model at one rate."""

    model: ModelUsed
    units: int | float
    unit: str
    """Of what: input_tokens, cached_tokens, output_tokens, input_seconds …"""
    rate: float
    """Cents for each, after the tier, before the discount."""
    cost: int
    """Cents, rounded half up."""
    cost_nanos: int
    pricing_type: str
    interval: Interval
    discount: float | None
    tier: str
    token_id: str | None = None


class UsageMonth(msgspec.Struct, frozen=True, kw_only=True):
    """A month of usage."""

    period: str
    """`2026.11`."""
    interval: Interval
    items: list[UsageItem]
    total_cost: int
    """Cents, of the exact sum, rounded half up."""
    total_cost_nanos: int
    """Items sum up to it but for what single requests were rounded to whole nano-dollars."""
    invoice_id: str
    """NOT_FINAL while the month runs."""


class PaymentUsage(msgspec.Struct, frozen=True):
    """Months of usage, oldest first."""

    months: list[UsageMonth]
    initial_month: str | None


class Rent(msgspec.Struct, frozen=True):
    """What was up, and for how long."""

    id_to_duration: dict[str, float]
    """Model → seconds that were paid for."""


def payment_usage_routes() -> list[Route]:
    """The routes of this file."""
    path, shape = "/payment/usage", "native"
    return [
        Route("GET", path, usage_by_month, "token", shape, "Usage by month, model and unit", None,
              PaymentUsage),
        Route("GET", f"{path}/tokens", usage_by_token, "token", shape,
              "Usage by month, token, model and unit", None, PaymentUsage),
        Route("GET", f"{path}/id/{{rest}}", usage_of_token, "token", shape,
              "Usage of one token by month", None, PaymentUsage),
        Route("GET", f"{path}/rent", rent, "token", shape, "How long models were up, for pay", None,
              Rent),
        Route("GET", f"{path}/{{rest}}", secret_in_path, "token", shape,
              "Always 410: a secret does not belong into a URL"),
    ]  # fmt: skip


async def usage_by_month(exchange: Exchange, services: Services) -> None:
    """GET /payment/usage?from=&to=."""
    query = Query(exchange.query)
    await _answer(exchange, services, query, view_of(exchange.caller, query))


async def usage_by_token(exchange: Exchange, services: Services) -> None:
    """GET /payment/usage/tokens?from=&to=."""
    query = Query(exchange.query)
    await _answer(exchange, services, query, view_of(exchange.caller, query), by_token=True)


async def usage_of_token(exchange: Exchange, services: Services) -> None:
    """GET /payment/usage/id/{token_id}?from=&to=: revoked tokens too."""
    query = Query(exchange.query)
    view = view_of(exchange.caller, query)
    if view.token_id not in (None, exchange.rest):
        raise NotFound("No such token.")
    async with services.database.reading() as connection:
        if not await rollups.may_see_token(connection, view, exchange.rest):
            raise NotFound("No such token.")
    view = msgspec.structs.replace(view, token_id=exchange.rest)
    await _answer(exchange, services, query, view)


async def rent(exchange: Exchange, services: Services) -> None:
    """GET /payment/usage/rent?from=&to= with Unix seconds; the running month by default."""
    query = Query(exchange.query)
    now = services.clock.unix_ns() // 1_000_000_000
    first = query.whole("from", month_at(now).first_day * DAY_SECONDS, _YEAR_2200)
    until = query.whole("to", now, _YEAR_2200)
    part = Slice(view_of(exchange.caller, query), first // DAY_SECONDS, -(-until // DAY_SECONDS))
    async with services.database.reading() as connection:
        lines = await rollups.lines(connection, part)
    up: dict[str, float] = {}
    for line in lines:
        if line.unit == "uptime_seconds":
            up[line.model] = up.get(line.model, 0.0) + line.quantity / MICRO
    await exchange.respond(200, msgspec.json.encode(Rent(up)))


async def secret_in_path(exchange: Exchange, services: Services) -> None:
    """GET /payment/usage/{api_token}."""
    raise Gone("A secret does not belong into a URL. Use /payment/usage/id/{token_id}.")


async def _answer(
    exchange: Exchange, services: Services, query: Query, view: View, *, by_token: bool = False
) -> None:
    now = services.clock.unix_ns()
    here = month_at(now // 1_000_000_000)
    first = _month(query, "from", here) or here
    last = _month(query, "to", here) or here
    count = (last.year - first.year) * 12 + last.month - first.month + 1
    if not 0 < count <= MONTHS_MAX:
        raise BadRequest(f"from and to span 1 to {MONTHS_MAX} months.", param="from")
    known = await months(services.database, view, now)
    wanted = [month for month in known if first <= month <= last]
    shown = [
        _shown(services, await invoice(services.database, view, month, now, by_token=by_token))
        for month in wanted
    ]
    body = PaymentUsage(shown, _period(known[0]) if known else None)
    await exchange.respond(200, msgspec.json.encode(body))


def _month(query: Query, name: str, here: Month) -> Month | None:
    """`YYYY.MM`, `current`, `current-N` or Unix seconds."""
    given = query.text(name)
    if given is None:
        return None
    if given == "current":
        return here
    back = given.removeprefix("current-")
    try:
        if back != given and back.isascii() and back.isdecimal() and len(back) <= 3:
            return here.plus(-int(back))
        if given.isascii() and given.isdecimal() and int(given[:13]) <= _YEAR_2200:
            return month_at(int(given[:13]))
        return read_month(given)
    except ValueError as error:
        raise BadRequest(f"{name}: {error}", param=name) from None


def _period(month: Month) -> str:
    return f"{month.year:04d}.{month.month:02d}"


def _shown(services: Services, found: Invoice) -> UsageMonth:
    month = found.month
    return UsageMonth(
        period=_period(month),
        interval=_interval(month.first_day, month.after_day - 1),
        items=_items(services, found.lines),
        total_cost=cents(found.total_nanos),
        total_cost_nanos=found.total_nanos,
        invoice_id=str(month) if found.final else "NOT_FINAL",
    )


def _items(services: Services, lines: Sequence[InvoiceLine]) -> list[UsageItem]:
    tasks = {card.name: card.task for card in services.catalog.cards()}
    return [
        UsageItem(
            model=ModelUsed(line.model.partition("/")[0], line.model, tasks.get(line.model, "")),
            units=_units(line.units_micro),
            unit=line.part,
            rate=cents_per_unit(line.rate) * line.tier_millionths / ONE,
            cost=cents(line.cost_nanos),
            cost_nanos=line.cost_nanos,
            pricing_type=_pricing_type(line.part, tasks.get(line.model)),
            interval=_interval(line.first_day, line.last_day),
            discount=line.discount_millionths / ONE if line.discount_millionths else None,
            tier=line.tier,
            token_id=line.token_id or None,
        )
        for line in lines
    ]


def _pricing_type(part: str, task: str | None) -> str:
    if part.endswith("_tokens") and task in ("embeddings", "reranker"):
        return "input_tokens"
    return _TYPES[part]


def cents(nanos: int) -> int:
    """Whole cents, half up."""
    return (2 * nanos + NANOS_PER_CENT) // (2 * NANOS_PER_CENT)


def _units(micro: int) -> int | float:
    return micro / MICRO if micro % MICRO else micro // MICRO


def _interval(first_day: int, last_day: int) -> Interval:
    day_ms = DAY_SECONDS * 1000
    return Interval(first_day * day_ms, (last_day + 1) * day_ms - 1)
