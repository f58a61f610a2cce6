"""Gateways of one database: when they were seen, what waits for them, and how to wait no longer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage import reservations
from inferd.storage.tables import jobs
from inferd.storage.tables_budgets import gateways, leases

LOST = "The machine that worked on it is gone."
_WAITING = ("queued", "running")


class GatewayRow(msgspec.Struct, frozen=True):
    """A gateway that has ever been one of several."""

    id: str
    seen_unix_ns: int
    leased_nanos: int
    """Of all budgets: nobody else can spend it."""
    jobs: int
    """Films that only it can finish."""


async def every(connection: AsyncConnection) -> Sequence[GatewayRow]:
    """All of them, by name."""
    leased = (
        select(func.coalesce(func.sum(leases.c.nanos), 0))
        .where(leases.c.gateway == gateways.c.id)
        .scalar_subquery()
    )
    waiting = (
        select(func.count())
        .select_from(jobs)
        .where(jobs.c.gateway == gateways.c.id, jobs.c.status.in_(_WAITING))
        .scalar_subquery()
    )
    query = select(gateways.c.id, gateways.c.seen_unix_ns, leased, waiting).order_by(gateways.c.id)
    rows = await connection.execute(query)
    return [GatewayRow(row[0], row[1], int(row[2]), row[3]) for row in rows]


async def forget(connection: AsyncConnection, gateway: str, now_unix_ns: int) -> None:
    """Free what a lost gateway had leased and reserved; its films fail, its keys are free.

    A process of this name that lives all the same is told to stop by its next heartbeat.
    """
    await connection.execute(delete(leases).where(leases.c.gateway == gateway))
    await reservations.clear(connection, gateway)
    await connection.execute(
        update(jobs)
        .where(jobs.c.gateway == gateway, jobs.c.status.in_(_WAITING))
        .values(status="failed", error=LOST, ended_unix_ns=now_unix_ns)
    )
    await connection.execute(delete(gateways).where(gateways.c.id == gateway))
