"""Usage and cost, as JSON and CSV, and the ledger's self-check."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from inferd.api.csv_text import KIND, Cell, attachment, csv_text
from inferd.api.exchange import Exchange
from inferd.api.manage.query import Query, view_of
from inferd.api.services import Services
from inferd.errors import BadRequest
from inferd.metering.periods import DAY_SECONDS
from inferd.metering.report import (
    GROUPINGS,
    Grouping,
    Report,
    Slice,
    UsageSum,
    usage_report,
)
from inferd.metering.verify import Running, verify
from inferd.money import usd, usd_text
from inferd.storage import rollups
from inferd.tasks.base import MICRO

_NANOS = 1_000_000_000
_YEAR_2200 = 7_258_118_400
ROWS_MAX = 100_000
ROWS_DEFAULT = 10_000
DAYS_DEFAULT = 31


class UsageRow(msgspec.Struct, frozen=True):
    """Sums over one group."""

    key: str
    name: str
    """Of the token or the account that `key` is the id of; else the key itself."""
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nanos: int
    cost_usd: float
    input_seconds: float
    """Of audio that was listened to."""
    input_characters: int
    """That were spoken."""
    image_units: float
    output_seconds: float
    """Of video."""
    frame_units: float
    compute_seconds: float
    uptime_seconds: float


class UsageReport(msgspec.Struct, frozen=True):
    """Usage in [from, to), grouped. Both are midnights of UTC: sums are kept by day."""

    by: str
    from_unix: int
    to_unix: int
    rows: list[UsageRow]
    truncated: bool
    """There were more rows than `limit`; the totals are of all."""
    total_requests: int
    total_cost_nanos: int
    total_cost_usd: float


class VerificationOut(msgspec.Struct, frozen=True):
    """What recomputing the ledger found."""

    entries: int
    count: int
    """Differences in all; of one kind of sum at most a hundred are counted."""
    differences: list[str]
    """A sentence each, the first hundred."""


async def usage_of(exchange: Exchange, services: Services) -> None:
    """GET /v1/usage?by=&month=&from=&to=&model=&token=&tag=&account=&limit=&format=."""
    query = Query(exchange.query)
    by = _grouping(query)
    part = _slice(exchange, services, query)
    limit = query.whole("limit", ROWS_DEFAULT, ROWS_MAX, 1)
    as_csv = _wants_csv(exchange, query)
    report = await usage_report(services.database, by, part, limit)
    names = await _names(services, by, report)
    rows = [_row(one, names) for one in report.rows]
    if as_csv:
        await exchange.respond(200, usage_csv(by, rows), [KIND, attachment(f"usage-by-{by}.csv")])
        return
    body = UsageReport(
        by,
        part.first_day * DAY_SECONDS,
        part.after_day * DAY_SECONDS,
        rows,
        report.truncated,
        report.total.requests,
        report.total.cost_nanos,
        usd(report.total.cost_nanos),
    )
    await exchange.respond(200, msgspec.json.encode(body))


async def verify_usage(exchange: Exchange, services: Services) -> None:
    """POST /v1/usage/verify."""
    ledger, now = services.ledger, services.clock.unix_ns()
    found = await verify(services.database, Running(ledger.gateway, ledger.holding, now))
    body = VerificationOut(found.entries, found.count, list(found.differences))
    await exchange.respond(200, msgspec.json.encode(body))


def _slice(exchange: Exchange, services: Services, query: Query) -> Slice:
    month = query.month("month")
    if month is not None:
        first, after = month.first_day, month.after_day
    else:
        today = services.clock.unix_ns() // _NANOS // DAY_SECONDS
        oldest = (today + 1 - DAYS_DEFAULT) * DAY_SECONDS
        first = query.whole("from", oldest, _YEAR_2200) // DAY_SECONDS
        until = query.whole("to", (today + 1) * DAY_SECONDS, _YEAR_2200)
        after = -(-until // DAY_SECONDS)
    return Slice(
        view_of(exchange.caller, query),
        first,
        after,
        model=query.text("model"),
        token_id=query.text("token"),
        tag=query.text("tag"),
    )


def _grouping(query: Query) -> Grouping:
    given = query.text("by") or "model"
    for known in GROUPINGS:
        if given == known:
            return known
    raise BadRequest(f"by must be one of {', '.join(GROUPINGS)}.", param="by")


def _wants_csv(exchange: Exchange, query: Query) -> bool:
    asked = query.text("format")
    if asked is None:
        return b"text/csv" in exchange.headers.get(b"accept", b"")
    if asked not in ("json", "csv"):
        raise BadRequest("format is json or csv.", param="format")
    return asked == "csv"


async def _names(services: Services, by: Grouping, report: Report) -> Mapping[str, str]:
    """Id → name, of the tokens or accounts that the rows are of."""
    keys = [row.key for row in report.rows]
    async with services.database.reading() as connection:
        if by == "token":
            return await rollups.token_names(connection, keys)
        if by == "account":
            return await rollups.account_names(connection, keys)
    return {}


def _row(one: UsageSum, names: Mapping[str, str]) -> UsageRow:
    return UsageRow(
        one.key,
        names.get(one.key, one.key),
        one.requests,
        one.input_tokens,
        one.cached_tokens,
        one.output_tokens,
        one.cost_nanos,
        usd(one.cost_nanos),
        one.input_seconds / MICRO,
        one.input_characters // MICRO,
        one.image_units / MICRO,
        one.output_seconds / MICRO,
        one.frame_units / MICRO,
        one.compute_seconds / MICRO,
        one.uptime_seconds / MICRO,
    )


def usage_csv(by: str, rows: list[UsageRow]) -> bytes:
    """A table of all that a row has."""
    fields = UsageRow.__struct_fields__
    columns = [by if name == "key" else name for name in fields]
    return csv_text(columns, (_cells(row, fields) for row in rows))


def _cells(row: UsageRow, fields: tuple[str, ...]) -> list[Cell]:
    # Dollars as an exact decimal: a float would be one more rounding.
    exact: dict[str, Cell] = {"cost_usd": usd_text(row.cost_nanos).replace("$", "")}
    return [exact.get(name, getattr(row, name)) for name in fields]
