"""Limits: what an account may do, asking for more, setting them (deepinfra-api 9.1)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta

from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import BadRequest
from inferd.storage.limits import LimitRequestRow, LimitRow

REASON_CHARACTERS_MAX = 2048
UNLIMITED = 1_000_000_000_000
"""What is shown where a number is expected and there is no limit: the highest that can be set."""
Count = Annotated[int, Meta(ge=1, le=UNLIMITED)]
Name = Annotated[str, Meta(min_length=1, max_length=300)]


class LimitOut(msgspec.Struct, frozen=True):
    """One limit. A name that is null: all together; `*`: each on its own."""

    account_id: str | None
    token_id: str | None
    model: str | None
    concurrent_requests: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    own: bool
    """The account set it for itself; it only narrows what the admin set."""


class RateLimit(msgspec.Struct, frozen=True):
    """What the account may do on each model, and the limits that name it."""

    rate_limit: int
    """Requests in flight on one model; 1000000000000: no limit."""
    tpm_rate_limit: int
    """Tokens per minute; 1000000000000: no limit."""
    rpm_rate_limit: int | None
    """Requests per minute; null: no limit."""
    limits: list[LimitOut]


class RateLimitRequest(msgspec.Struct, frozen=True):
    """A wish for higher limits."""

    rate_limit: Count
    reason: Annotated[str, Meta(min_length=1, max_length=REASON_CHARACTERS_MAX)]
    tpm_rate_limit: Count | None = None


class Empty(msgspec.Struct, frozen=True):
    """{}."""


class LimitIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit to set; one without bounds removes the one that was there."""

    account_id: Name | None = None
    token_id: Name | None = None
    model: Name | None = None
    concurrent_requests: Count | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None


class LimitList(msgspec.Struct, frozen=True):
    """All limits."""

    limits: list[LimitOut]


class LimitRequestOut(msgspec.Struct, frozen=True):
    """What an account asked for."""

    id: str
    account_id: str
    rate_limit: int
    tpm_rate_limit: int | None
    reason: str
    status: Literal["pending", "granted", "rejected"]
    answer: str | None
    created_at: str
    resolved_at: str | None


class LimitRequestList(msgspec.Struct, frozen=True):
    """The newest first."""

    requests: list[LimitRequestOut]


class ResolutionIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Yes or no, and a word to whoever asked."""

    grant: bool
    answer: Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)] | None = None


_WISHES = msgspec.json.Decoder(RateLimitRequest)
_LIMITS = msgspec.json.Decoder(LimitIn)
_RESOLUTIONS = msgspec.json.Decoder(ResolutionIn)


async def rate_limit(exchange: Exchange, services: Services) -> None:
    """GET /v1/me/rate_limit."""
    rates = services.limits.rates(exchange.caller.account_id)
    rows = await services.limits.seen_by(exchange.caller)
    body = RateLimit(
        rate_limit=rates.concurrent_requests or UNLIMITED,
        tpm_rate_limit=rates.tokens_per_minute or UNLIMITED,
        rpm_rate_limit=rates.requests_per_minute,
        limits=[_out(row) for row in rows],
    )
    await exchange.respond(200, msgspec.json.encode(body))


async def request_rate_limit(exchange: Exchange, services: Services) -> None:
    """POST /v1/me/rate_limit/request."""
    wish = await inference.read(exchange, services, _WISHES)
    await services.limits.ask(exchange.caller, wish.rate_limit, wish.tpm_rate_limit, wish.reason)
    await exchange.respond(200, b"{}")


async def set_limit(exchange: Exchange, services: Services) -> None:
    """PUT /v1/admin/limits."""
    await _set(exchange, services, own=False)


async def set_own_limit(exchange: Exchange, services: Services) -> None:
    """PUT /v1/limits: of the account's tokens."""
    await _set(exchange, services, own=True)


async def _set(exchange: Exchange, services: Services, *, own: bool) -> None:
    wire = await inference.read(exchange, services, _LIMITS)
    row = LimitRow(**msgspec.structs.asdict(wire), own=own)
    placed = await services.limits.put(exchange.caller, row)
    await exchange.respond(200, msgspec.json.encode(_out(placed)))


async def list_limits(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/limits."""
    body = LimitList([_out(row) for row in await services.limits.every()])
    await exchange.respond(200, msgspec.json.encode(body))


async def list_limit_requests(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/limit-requests?status=pending."""
    status = parse_qs(exchange.query.decode("latin-1")).get("status", [None])[-1]
    if status not in (None, "pending", "granted", "rejected"):
        raise BadRequest("status is pending, granted or rejected.", param="status")
    rows = await services.limits.asked(status)
    body = LimitRequestList([_request_out(row) for row in rows])
    await exchange.respond(200, msgspec.json.encode(body))


async def resolve_limit_request(exchange: Exchange, services: Services) -> None:
    """POST /v1/admin/limit-requests/{id}."""
    wire = await inference.read(exchange, services, _RESOLUTIONS)
    row = await services.limits.resolve(
        exchange.caller, exchange.rest, grant=wire.grant, answer=wire.answer
    )
    await exchange.respond(200, msgspec.json.encode(_request_out(row)))


def _out(row: LimitRow) -> LimitOut:
    return LimitOut(**msgspec.structs.asdict(row))


def _request_out(row: LimitRequestRow) -> LimitRequestOut:
    resolved = row.resolved_unix_ns
    return LimitRequestOut(
        id=row.id,
        account_id=row.account_id,
        rate_limit=row.rate_limit,
        tpm_rate_limit=row.tpm_rate_limit,
        reason=row.reason,
        status=row.status,
        answer=row.answer,
        created_at=_iso(row.created_unix_ns),
        resolved_at=None if resolved is None else _iso(resolved),
    )


def _iso(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).isoformat(timespec="seconds")


def _limits_of_others() -> list[Route]:
    admin, native = "admin", "native"
    path, one = "/v1/admin/limits", "/v1/admin/limit-requests/{rest}"
    return [
        Route("GET", path, list_limits, admin, native, "All limits", gives=LimitList),
        Route(
            "PUT",
            path,
            set_limit,
            admin,
            native,
            "Limit accounts, tokens and models",
            LimitIn,
            LimitOut,
        ),
        Route(
            "GET",
            "/v1/admin/limit-requests",
            list_limit_requests,
            admin,
            native,
            "What accounts asked for",
            gives=LimitRequestList,
        ),
        Route(
            "POST",
            one,
            resolve_limit_request,
            admin,
            native,
            "Grant or reject a request",
            ResolutionIn,
            LimitRequestOut,
        ),
    ]


def limit_routes() -> list[Route]:
    """What this file serves."""
    return [
        Route(
            "GET",
            "/v1/me/rate_limit",
            rate_limit,
            "token",
            "native",
            "What the account may do on each model",
            gives=RateLimit,
        ),
        Route(
            "POST",
            "/v1/me/rate_limit/request",
            request_rate_limit,
            "account-admin",
            "native",
            "Ask for higher limits",
            RateLimitRequest,
            Empty,
        ),
        Route(
            "PUT",
            "/v1/limits",
            set_own_limit,
            "account-admin",
            "native",
            "Limit a token of the account",
            LimitIn,
            LimitOut,
        ),
        *_limits_of_others(),
    ]
