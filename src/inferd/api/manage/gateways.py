"""Gateways that share the database: which there are, and giving one up that will not come back."""

from __future__ import annotations

import msgspec

from inferd.access import audit
from inferd.api.exchange import Exchange
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import Conflict, NotFound
from inferd.metering.periods import moment_text
from inferd.money import usd_text
from inferd.storage import gateways

LOST_SECONDS = 60
"""A gateway that was seen more recently may be alive: heartbeats come every second."""


class GatewayOut(msgspec.Struct, frozen=True):
    """One gateway."""

    name: str
    seen_at: str
    leased: str
    """Of all budgets; while it is away nobody can spend it."""
    unfinished_videos: int
    lost: bool
    """It was not seen for a minute."""


class GatewayList(msgspec.Struct, frozen=True):
    """All gateways; none where one serves alone."""

    gateways: list[GatewayOut]


def gateway_routes() -> list[Route]:
    """The routes of this file."""
    path, shape, admin = "/v1/admin/gateways", "native", "admin"
    return [
        Route("GET", path, list_gateways, admin, shape, "Gateways of this database", None,
              GatewayList),
        Route("DELETE", f"{path}/{{rest}}", forget_gateway, admin, shape,
              "Give up a gateway that will not come back", None, GatewayList),
    ]  # fmt: skip


async def list_gateways(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/gateways."""
    await _answer(exchange, services)


async def forget_gateway(exchange: Exchange, services: Services) -> None:
    """DELETE /v1/admin/gateways/{name}. Raises Conflict while it may be alive."""
    name = exchange.rest
    async with services.database.writing() as connection:
        rows = {row.id: row for row in await gateways.every(connection)}
        if name not in rows:
            raise NotFound("There is no such gateway.")
        if not _is_lost(services, rows[name]):
            raise Conflict(
                f"This gateway was seen in the last {LOST_SECONDS} s: stop it, or wait.",
            )
        await gateways.forget(connection, name, services.clock.unix_ns())
        given_back = {"leased": usd_text(rows[name].leased_nanos), "videos": rows[name].jobs}
        await audit.write(connection, exchange.caller, "gateway.forget", name, given_back)
    await _answer(exchange, services)


async def _answer(exchange: Exchange, services: Services) -> None:
    async with services.database.reading() as connection:
        rows = await gateways.every(connection)
    shown = [
        GatewayOut(
            row.id,
            moment_text(row.seen_unix_ns),
            usd_text(row.leased_nanos),
            row.jobs,
            _is_lost(services, row),
        )
        for row in rows
    ]
    await exchange.respond(200, msgspec.json.encode(GatewayList(shown)))


def _is_lost(services: Services, row: gateways.GatewayRow) -> bool:
    return services.clock.unix_ns() - row.seen_unix_ns > LOST_SECONDS * 1_000_000_000
