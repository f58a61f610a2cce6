"""Native calls that are answered by a webhook: what became of them, and sending one again."""

from __future__ import annotations

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.manage.query import Query, view_of
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import NotFound
from inferd.metering.periods import moment_text
from inferd.storage.webhook_calls import CallRow

LISTED_MAX = 1000


class AttemptOut(msgspec.Struct, frozen=True):
    """One try to deliver."""

    at: str
    status: int
    """What the receiver answered; 0: nothing."""
    error: str | None


class DeliveryOut(msgspec.Struct, frozen=True):
    """A call and its delivery."""

    request_id: str
    delivery_id: str
    """The header `webhook-id`, the same for every attempt."""
    status: str
    """Of the call: queued, running, succeeded or failed."""
    delivery: str
    """waiting for the answer, pending, delivered, or failed: no attempt is planned any more."""
    webhook: str
    created_at: str
    ended_at: str | None
    next_attempt_at: str | None
    attempts: list[AttemptOut]


class DeliveryList(msgspec.Struct, frozen=True):
    """The newest first."""

    deliveries: list[DeliveryOut]


class DeliveryDetails(msgspec.Struct, frozen=True):
    """One call, with its answer once it is there."""

    delivery: DeliveryOut
    answer: msgspec.Raw


class WebhookSecret(msgspec.Struct, frozen=True):
    """What the account's receivers verify signatures with (Standard Webhooks)."""

    secret: str


_encode = msgspec.json.Encoder().encode
_NOTHING = msgspec.Raw(b"null")


def webhook_routes() -> list[Route]:
    """The routes of this file."""
    path, shape, token = "/v1/webhooks/deliveries", "native", "token"
    return [
        Route("GET", path, list_deliveries, token, shape, "Calls answered by a webhook", None,
              DeliveryList),
        Route("GET", f"{path}/{{rest}}", show_delivery, token, shape,
              "One of them, with its answer", None, DeliveryDetails),
        Route("POST", f"{path}/{{rest}}/resend", resend, token, shape,
              "Deliver an answer once more", None, DeliveryOut),
        Route("GET", "/v1/webhooks/secret", show_secret, "account-admin", shape,
              "What signatures of deliveries are verified with", None, WebhookSecret),
    ]  # fmt: skip


async def list_deliveries(exchange: Exchange, services: Services) -> None:
    """GET /v1/webhooks/deliveries."""
    query = Query(exchange.query)
    limit = query.whole("limit", 100, LISTED_MAX, 1)
    rows = await services.webhooks.listed(view_of(exchange.caller, query), limit)
    await exchange.respond(200, _encode(DeliveryList([_shown(row) for row in rows])))


async def show_delivery(exchange: Exchange, services: Services) -> None:
    """GET /v1/webhooks/deliveries/{request_id}."""
    row = await _row(exchange, services)
    try:
        answer = await services.webhooks.answer(row)
    except NotFound:
        answer = None
    told = _NOTHING if answer is None else msgspec.Raw(answer)
    await exchange.respond(200, _encode(DeliveryDetails(_shown(row), told)))


async def resend(exchange: Exchange, services: Services) -> None:
    """POST /v1/webhooks/deliveries/{request_id}/resend."""
    row = await services.deliveries.resend(await _row(exchange, services))
    await exchange.respond(200, _encode(_shown(row)))


async def show_secret(exchange: Exchange, services: Services) -> None:
    """GET /v1/webhooks/secret."""
    secret = services.deliveries.secret(exchange.caller.account_id)
    await exchange.respond(200, _encode(WebhookSecret(secret)))


async def _row(exchange: Exchange, services: Services) -> CallRow:
    view = view_of(exchange.caller, Query(exchange.query))
    return await services.webhooks.get(view, exchange.rest)


def _shown(row: CallRow) -> DeliveryOut:
    return DeliveryOut(
        request_id=row.request_id,
        delivery_id=f"msg_{row.request_id}",
        status=row.status,
        delivery=row.delivery,
        webhook=row.webhook,
        created_at=moment_text(row.created_unix_ns),
        ended_at=None if row.ended_unix_ns is None else moment_text(row.ended_unix_ns),
        next_attempt_at=None if row.due_unix_ns is None else moment_text(row.due_unix_ns),
        attempts=[
            AttemptOut(moment_text(one.at_unix_ns), one.status, one.error) for one in row.tried()
        ],
    )
