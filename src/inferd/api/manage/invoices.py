"""Invoices: a list, and a page for each month (deepinfra-api 12); JSON is exact, HTML for people.

An invoice is named by its month, `2026-11`. The page runs no script and loads nothing.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256

import msgspec
from jinja2 import Environment, PackageLoader, select_autoescape

from inferd.access.caller import ACCOUNT_ADMIN
from inferd.api.exchange import Exchange
from inferd.api.manage.payment_usage import cents
from inferd.api.manage.query import Query, view_of
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import BadRequest, NotFound
from inferd.metering.invoices import Invoice, InvoiceLine, invoice, months
from inferd.metering.periods import DAY_SECONDS, Month, day_text, month_at, read_month
from inferd.metering.prices import ONE
from inferd.money import decimal_text, usd_text
from inferd.storage import accounts
from inferd.storage.rollups import View

PAGE_MAX = 50
PER_MILLION = ("input_tokens", "cached_tokens", "output_tokens", "input_characters")
_HTML = (b"content-type", b"text/html; charset=utf-8")
_NO_STORE = (b"cache-control", b"no-store")
_NO_REFERRER = (b"referrer-policy", b"no-referrer")


class InvoiceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice in the list. Amounts are whole cents."""

    id: str
    status: str
    """paid (from prepaid credit), open, or NOT_FINAL while the month runs."""
    total: int
    amount_due: int
    total_nanos: int
    created: int
    """Unix seconds: when its month is over."""
    due_date: int | None = None
    """There is no card processor: when it is due is between you and the admin."""
    period: str
    invoice_type: str = "usage"
    hosted_invoice_url: str
    invoice_pdf: str | None = None
    """Print the page."""


class InvoiceList(msgspec.Struct, frozen=True):
    """The newest first."""

    invoices: list[InvoiceSummary]
    has_more: bool
    next_cursor: str | None


class LineOut(msgspec.Struct, frozen=True, kw_only=True):
    """So many units of one kind of a model, at one rate."""

    model: str
    unit: str
    unit_name: str
    quantity: str
    """For people, exact."""
    quantity_micro: int
    """Millionths."""
    rate: str
    rate_unit: str
    rate_nanos_per_million: int
    tier: str
    multiplier: str | None
    discount: str | None
    price_version: int
    first_day: str
    last_day: str
    cost_nanos: int
    cost_usd: str
    cost_shown: str


class InvoiceOut(msgspec.Struct, frozen=True, kw_only=True):
    """A month. Lines and rounding sum up to the total, to the nano-dollar."""

    id: str
    account_id: str
    period: str
    first_day: str
    last_day: str
    final: bool
    requests: int
    lines: list[LineOut]
    rounding_nanos: int
    rounding_usd: str
    total_nanos: int
    total_usd: str
    total_shown: str


def invoice_routes() -> list[Route]:
    """The routes of this file."""
    path = "/payment/invoices"
    return [
        Route("GET", path, list_invoices, "account-admin", "native", "Invoices, the newest first",
              None, InvoiceList),
        Route("GET", f"{path}/{{rest}}", show_invoice, "account-admin", "native",
              "An invoice as a page, or with format=json exactly", None, InvoiceOut),
    ]  # fmt: skip


async def list_invoices(exchange: Exchange, services: Services) -> None:
    """GET /payment/invoices?limit=&starting_after=&invoice_type=."""
    query = Query(exchange.query)
    view = _account_view(exchange, query)
    limit = query.whole("limit", 10, PAGE_MAX, 1)
    after = query.month("starting_after")
    now = services.clock.unix_ns()
    known = list(reversed(await months(services.database, view, now)))
    if query.text("invoice_type") not in (None, "usage"):
        known = []
    known = [month for month in known if after is None or month < after]
    prepaid = await _prepaid(services, view)
    base = services.options.public_url or exchange.origin
    shown = [
        _summary(await invoice(services.database, view, month, now), prepaid=prepaid, base=base)
        for month in known[:limit]
    ]
    more = len(known) > limit
    body = InvoiceList(shown, more, shown[-1].period.replace(".", "-") if more else None)
    await exchange.respond(200, msgspec.json.encode(body))


async def show_invoice(exchange: Exchange, services: Services) -> None:
    """GET /payment/invoices/{month}?format=html|json."""
    query = Query(exchange.query)
    view = _account_view(exchange, query)
    try:
        month = read_month(exchange.rest)
    except ValueError:
        raise NotFound("An invoice is named by its month, such as 2026-11.") from None
    now = services.clock.unix_ns()
    if month > month_at(now // 1_000_000_000):
        raise NotFound("This month has not come yet.")
    name = await _name(services, view)
    body = _out(await invoice(services.database, view, month, now), view.account_id or "all")
    if _wants_json(exchange, query):
        await exchange.respond(200, msgspec.json.encode(body))
        return
    page, policy = _page(body, name)
    await exchange.respond(200, page, [_HTML, policy, _NO_STORE, _NO_REFERRER])


async def _name(services: Services, view: View) -> str:
    """What the account is called, deleted ones too. Raises NotFound."""
    if view.account_id is None:
        return "all accounts"
    async with services.database.reading() as connection:
        row = await accounts.by_id(connection, view.account_id)
    if row is None:
        raise NotFound("No such account.")
    return row.name


def _account_view(exchange: Exchange, query: Query) -> View:
    exchange.caller.require_scope(ACCOUNT_ADMIN)
    return view_of(exchange.caller, query)


async def _prepaid(services: Services, view: View) -> bool:
    if view.account_id is None:
        return False
    async with services.database.reading() as connection:
        row = await accounts.by_id(connection, view.account_id)
    return row is not None and row.credit_nanos is not None


def _wants_json(exchange: Exchange, query: Query) -> bool:
    asked = query.text("format")
    if asked not in (None, "html", "json"):
        raise BadRequest("format is html or json.", param="format")
    accepts = exchange.headers.get(b"accept", b"")
    return asked == "json" or (asked is None and b"application/json" in accepts)


def _summary(found: Invoice, *, prepaid: bool, base: str) -> InvoiceSummary:
    total = cents(found.total_nanos)
    paid = "paid" if prepaid else "open"
    return InvoiceSummary(
        id=str(found.month),
        status=paid if found.final else "NOT_FINAL",
        total=total,
        amount_due=0 if prepaid or not found.final else total,
        total_nanos=found.total_nanos,
        created=found.month.after_day * DAY_SECONDS,
        period=f"{found.month.year:04d}.{found.month.month:02d}",
        hosted_invoice_url=f"{base}/payment/invoices/{found.month}",
    )


def _out(found: Invoice, account_id: str) -> InvoiceOut:
    return InvoiceOut(
        id=str(found.month) if found.final else "NOT_FINAL",
        account_id=account_id,
        period=_title(found.month),
        first_day=day_text(found.month.first_day),
        last_day=day_text(found.month.after_day - 1),
        final=found.final,
        requests=found.requests,
        lines=[_line(line) for line in found.lines],
        rounding_nanos=found.rounding_nanos,
        rounding_usd=decimal_text(found.rounding_nanos, 9),
        total_nanos=found.total_nanos,
        total_usd=decimal_text(found.total_nanos, 9),
        total_shown=shown(found.total_nanos),
    )


def _title(month: Month) -> str:
    return datetime(month.year, month.month, 1, tzinfo=UTC).strftime("%B %Y")


def _line(line: InvoiceLine) -> LineOut:
    many = line.part in PER_MILLION
    name = line.part.replace("_", " ")
    multiplier = None if line.tier_millionths == ONE else decimal_text(line.tier_millionths, 6)
    off = decimal_text(line.discount_millionths, 4) + " %" if line.discount_millionths else None
    rate = usd_text(line.rate) if many else "$" + decimal_text(line.rate, 15)
    return LineOut(
        model=line.model,
        unit=line.part,
        unit_name=name,
        quantity=_grouped(decimal_text(line.units_micro, 6)),
        quantity_micro=line.units_micro,
        rate=rate,
        rate_unit="million" if many else name.removesuffix("s"),
        rate_nanos_per_million=line.rate,
        tier=line.tier,
        multiplier=multiplier,
        discount=off,
        price_version=line.price_id,
        first_day=day_text(line.first_day),
        last_day=day_text(line.last_day),
        cost_nanos=line.cost_nanos,
        cost_usd=decimal_text(line.cost_nanos, 9),
        cost_shown=shown(line.cost_nanos),
    )


def shown(nanos: int) -> str:
    """Dollars rounded to the cent; less than half a cent says so."""
    whole = cents(nanos)
    if nanos and not whole:
        return "< $0.01"
    return f"${whole // 100:,}.{whole % 100:02d}"


def _grouped(decimal: str) -> str:
    whole, point, fraction = decimal.partition(".")
    return f"{int(whole):,}{point}{fraction}"


@cache
def _environment() -> Environment:
    loader = PackageLoader("inferd.api")
    return Environment(loader=loader, autoescape=select_autoescape(default=True))


@cache
def _style() -> tuple[str, tuple[bytes, bytes]]:
    """The page's style, and the policy that lets this one in and nothing else."""
    environment = _environment()
    assert environment.loader is not None
    css, _, _ = environment.loader.get_source(environment, "invoice.css")
    digest = b64encode(sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return css, (b"content-security-policy", policy.encode())


def _page(body: InvoiceOut, account: str) -> tuple[bytes, tuple[bytes, bytes]]:
    css, policy = _style()
    page = _environment().get_template("invoice.html")
    return page.render(invoice=body, account=account, css=css).encode(), policy
