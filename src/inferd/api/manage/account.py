"""What single requests cost, and what old command line tools ask (deepinfra-api 7)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.manage.query import Query, view_of
from inferd.api.services import Services
from inferd.storage import entries

ASKED_MAX = 1000


class RequestCostsIn(msgspec.Struct, frozen=True):
    """Which requests: the `x-request-id` of their answers."""

    request_ids: Annotated[
        list[Annotated[str, Meta(max_length=64)]], Meta(max_length=ASKED_MAX)
    ] = msgspec.field(name="requestIds")


class RequestCost(msgspec.Struct, frozen=True, rename="camel"):
    """What one request cost."""

    request_id: str
    cost_nano_usd: int


class RequestCostsOut(msgspec.Struct, frozen=True):
    """Those that the caller may see and that are settled, in the order asked for.

    Who manages the account sees all of it, a member what is his own, any other token itself.
    """

    requests: list[RequestCost]


class CliVersion(msgspec.Struct, frozen=True):
    """Which command line tools are welcome."""

    min: str
    update: str
    latest: str


_COSTS = msgspec.json.Decoder(RequestCostsIn)
_CLI = CliVersion(min="0.1.0", update="0.6.0", latest="0.6.0")
"""deepctl asks before every command; 0.6.0 is the newest that was read."""


async def request_costs(exchange: Exchange, services: Services) -> None:
    """POST /v1/request-costs."""
    wire = await inference.read(exchange, services, _COSTS)
    async with services.database.reading() as connection:
        costs = await entries.costs(
            connection, view_of(exchange.caller, Query(b"")), wire.request_ids
        )
    asked = dict.fromkeys(wire.request_ids)
    body = RequestCostsOut([RequestCost(id_, costs[id_]) for id_ in asked if id_ in costs])
    await exchange.respond(200, msgspec.json.encode(body))


async def live(exchange: Exchange, services: Services) -> None:
    """GET /v1/metrics/live."""
    await exchange.respond(200, msgspec.json.encode(services.live.figures()))


async def cli_version(exchange: Exchange, services: Services) -> None:
    """GET /cli/version."""
    await exchange.respond(200, msgspec.json.encode(_CLI))
