"""Gateways of one database: when they were seen, what waits for them, and how to wait no longer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import BigInteger, delete, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage import reservations
from inferd.storage.leases import ALIVE_SECONDS
from inferd.storage.tables import jobs
from inferd.storage.tables_budgets import gateways, leases
from inferd.storage.tables_webhooks import webhook_calls

LOST = "The machine that worked on it is gone."
_NOW = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000000)::bigint"
_UNDELIVERED = ("waiting", "pending")
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


class Life(msgspec.Struct, frozen=True):
    """A gateway that lives, as far as is known. The times are the database's."""

    id: str
    epoch_unix_ns: int
    """When it began."""
    seen_unix_ns: int


async def alive(connection: AsyncConnection) -> Sequence[Life]:
    """Those that were seen within ALIVE_SECONDS, on PostgreSQL."""
    c = gateways.c
    query = select(c.id, c.epoch_unix_ns, c.seen_unix_ns).where(
        c.seen_unix_ns > literal_column(_NOW, BigInteger) - ALIVE_SECONDS * 1_000_000_000
    )
    return [Life(*row) for row in await connection.execute(query.order_by(c.id))]


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
    # What is answered by a webhook lies on that machine, asked and answered.
    await connection.execute(
        update(webhook_calls)
        .where(webhook_calls.c.gateway == gateway, webhook_calls.c.delivery.in_(_UNDELIVERED))
        .values(status="failed", ended_unix_ns=now_unix_ns, delivery="failed", due_unix_ns=None)
    )
    await connection.execute(delete(gateways).where(gateways.c.id == gateway))
