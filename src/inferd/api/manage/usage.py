"""Usage and cost of the caller's account, and the ledger's self-check."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.services import Services
from inferd.errors import BadRequest
from inferd.metering.report import GROUPINGS, Grouping, usage_by
from inferd.metering.verify import verify
from inferd.money import usd
from inferd.tasks.base import MICRO

_NANOS = 1_000_000_000
_YEAR_2200 = 7_258_118_400


class UsageRow(msgspec.Struct, frozen=True):
    """Sums over one group."""

    key: str
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
    compute_seconds: float


class UsageReport(msgspec.Struct, frozen=True):
    """Usage of an account in [from, to), grouped."""

    by: str
    from_unix: int
    to_unix: int
    rows: list[UsageRow]
    total_cost_nanos: int
    total_cost_usd: float


class VerificationOut(msgspec.Struct, frozen=True):
    """What recomputing the ledger found."""

    entries: int
    differences: list[str]


async def usage_report(exchange: Exchange, services: Services) -> None:
    """GET /v1/usage?from=&to=&by= with Unix seconds; the last 31 days by default."""
    query = parse_qs(exchange.query.decode("latin-1"))
    now = services.clock.unix_ns() // _NANOS
    since = _seconds(query, "from", now - 31 * 86_400)
    until = _seconds(query, "to", now + 1)
    by = _grouping(query)
    rows = await usage_by(
        services.database, exchange.caller.account_id, by, (since * _NANOS, until * _NANOS)
    )
    shown = [
        UsageRow(
            r.key,
            r.requests,
            r.input_tokens,
            r.cached_tokens,
            r.output_tokens,
            r.cost_nanos,
            usd(r.cost_nanos),
            r.input_seconds / MICRO,
            r.input_characters // MICRO,
            r.image_units / MICRO,
            r.output_seconds / MICRO,
            r.compute_seconds / MICRO,
        )
        for r in rows
    ]
    total = sum(row.cost_nanos for row in shown)
    report = UsageReport(by, since, until, shown, total, usd(total))
    await exchange.respond(200, msgspec.json.encode(report))


async def verify_usage(exchange: Exchange, services: Services) -> None:
    """POST /v1/usage/verify."""
    found = await verify(services.database)
    body = VerificationOut(found.entries, list(found.differences))
    await exchange.respond(200, msgspec.json.encode(body))


def _seconds(query: dict[str, list[str]], name: str, default: int) -> int:
    given = query.get(name, [str(default)])[0]
    if not (given.isascii() and given.isdecimal()) or len(given) > 12 or int(given) > _YEAR_2200:
        raise BadRequest(f"{name} must be whole seconds since 1970.", param=name)
    return int(given)


def _grouping(query: dict[str, list[str]]) -> Grouping:
    given = query.get("by", ["model"])[0]
    for known in GROUPINGS:
        if given == known:
            return known
    raise BadRequest(f"by must be one of {', '.join(GROUPINGS)}.", param="by")
