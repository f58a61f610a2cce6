"""Calls that are answered `queued` at once, and by a webhook later (deepinfra-api 13)."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from inferd.admission.work import Order, Work
from inferd.api.address import parse_url
from inferd.api.detached import HEADERS, ORIGIN
from inferd.api.exchange import Exchange
from inferd.api.idempotency import paid
from inferd.api.services import Services
from inferd.errors import BadRequest, NotFound
from inferd.jobs.webhook_calls import Asked
from inferd.storage.rollups import View

_QUEUED = {
    "status": "queued",
    "runtime_ms": 0,
    "cost": 0.0,
    "tokens_generated": None,
    "tokens_input": None,
}


def take_webhook(exchange: Exchange, webhook: str | None) -> None:
    """Note where the answer goes, or let go of the body. Raises UrlNotAllowed, BadRequest.

    Names are looked up when it is delivered: what they lead to now says nothing of then.
    """
    if not webhook or exchange.detached is not None:
        exchange.kept = b""
        return
    exchange.webhook = parse_url(webhook, "webhook").url


async def admit(exchange: Exchange, services: Services, order: Order) -> Work:
    """Let the order in; one that was let in when it was asked for is in."""
    detached = exchange.detached
    if detached is not None and detached.work is not None:
        work, detached.work = detached.work, None
        work.order = order
        return work
    return await services.gate.admit(exchange.caller, paid(exchange, order))


async def deferred(exchange: Exchange, services: Services, order: Order, *, streamed: bool) -> bool:
    """Answer `queued` if there is a webhook; True if so."""
    if not exchange.webhook:
        return False
    if streamed:
        raise BadRequest("stream does not go with webhook.", param="webhook")
    headers = [(name, exchange.headers[name]) for name in HEADERS if name in exchange.headers]
    headers.append((ORIGIN, exchange.origin.encode()))
    query = exchange.query.decode("latin-1")
    asked = Asked(exchange.path, query, headers, exchange.kept, exchange.webhook)
    begun = await _begun(exchange, services)
    if begun is None:
        work = await services.gate.admit(exchange.caller, paid(exchange, order))
        await services.webhooks.submit(exchange.caller, asked, work)
    told = {"request_id": begun or order.request_id, "inference_status": _QUEUED}
    await exchange.respond(200, msgspec.json.encode(told))
    return True


async def _begun(exchange: Exchange, services: Services) -> str | None:
    """The request id of a call with a key that was queued before a crash lost its answer."""
    before = None if exchange.recorder is None else exchange.recorder.before
    if before is None:
        return None
    with suppress(NotFound):
        view = View(exchange.caller.account_id)
        return (await services.webhooks.get(view, before)).request_id
    return None
