"""What gateways have leased of the budgets, on PostgreSQL.

    spent + all leases ≤ limit, each lease ≥ 0

Only `take` makes a lease grow, under the lock of the purse's row; a gateway's own settlements and
`give_back` make it shrink. Those who wait for another gateway's answer listen to CHANNEL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.errors import Unavailable

CHANNEL = "inferd_leases"
"""Of PostgreSQL's notices: RECALLED or RETURNED, and the purse."""
RECALLED = "recalled "
RETURNED = "returned "
ALIVE_SECONDS = 5
"""A gateway that has not been seen for so long is not asked for what it has leased."""
SHARE = 8
"""A gateway that runs short leases this part of what is free, or what it needs if that is more."""

_NOW = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000000)::bigint"
_ALIVE = f"gateways.seen_unix_ns > {_NOW} - {ALIVE_SECONDS}000000000"
_OTHERS = (
    "SELECT leases.gateway FROM leases JOIN gateways ON gateways.id = leases.gateway "
    f"WHERE leases.purse = :purse AND leases.gateway <> :gateway AND {_ALIVE}"
)


class Taken(NamedTuple):
    """What a gateway got of a purse."""

    nanos: int
    elsewhere_nanos: int
    """Leased by other gateways, alive or not."""


async def enter(connection: AsyncConnection, gateway: str) -> int:
    """Begin a life of a gateway whose journal is replayed; returns its epoch.

    What its last life had leased or reserved is free again.
    """
    await _say(connection, "DELETE FROM leases WHERE gateway = :gateway", gateway=gateway)
    epoch = await connection.execute(
        text(
            f"INSERT INTO gateways (id, epoch_unix_ns, seen_unix_ns) VALUES (:gateway, {_NOW}, "
            f"{_NOW}) ON CONFLICT (id) DO UPDATE SET epoch_unix_ns = excluded.epoch_unix_ns, "
            "seen_unix_ns = excluded.seen_unix_ns RETURNING epoch_unix_ns"
        ),
        {"gateway": gateway},
    )
    return int(epoch.scalar_one())


async def beat(connection: AsyncConnection, gateway: str, epoch_unix_ns: int) -> None:
    """Say that the gateway lives. Raises Unavailable if another process took its name."""
    changed = await _say(
        connection,
        f"UPDATE gateways SET seen_unix_ns = {_NOW} WHERE id = :gateway AND epoch_unix_ns = :epoch",
        gateway=gateway,
        epoch=epoch_unix_ns,
    )
    if changed != 1:
        raise Unavailable(f"Another process runs as gateway {gateway}: this one must stop.")


async def lock(connection: AsyncConnection, purse: str) -> int:
    """Hold the purse until the transaction ends; returns what is spent of it."""
    await _say(
        connection,
        "INSERT INTO purses (key, spent_nanos) VALUES (:purse, 0) ON CONFLICT (key) DO NOTHING",
        purse=purse,
    )
    query = text("SELECT spent_nanos FROM purses WHERE key = :purse FOR UPDATE")
    return int((await connection.execute(query, {"purse": purse})).scalar_one())


async def take(
    connection: AsyncConnection, purse: str, gateway: str, wanted: int, unspent: int
) -> Taken:
    """Lease at least `wanted` of a locked purse, or all that is free. `unspent`: limit − spent."""
    query = text(
        "SELECT COALESCE(SUM(nanos), 0)::bigint, "
        "COALESCE(SUM(nanos) FILTER (WHERE gateway <> :gateway), 0)::bigint "
        "FROM leases WHERE purse = :purse"
    )
    values = {"purse": purse, "gateway": gateway}
    leased, elsewhere = (await connection.execute(query, values)).one()
    free = max(0, unspent - leased)
    nanos = min(free, max(wanted, free // SHARE))
    if nanos:
        await _say(
            connection,
            "INSERT INTO leases (purse, gateway, nanos) VALUES (:purse, :gateway, :nanos) "
            "ON CONFLICT (purse, gateway) DO UPDATE SET nanos = leases.nanos + excluded.nanos",
            nanos=nanos,
            **values,
        )
    return Taken(nanos, elsewhere)


async def recall(connection: AsyncConnection, purse: str, gateway: str) -> int:
    """Ask the other living gateways for what they do not need; returns how many were asked."""
    # One recall of a purse at a time: two would lock the others' rows in different orders.
    await lock(connection, purse)
    asked = await _say(
        connection,
        "UPDATE leases SET recalled = TRUE WHERE purse = :purse AND nanos > 0 "
        f"AND gateway IN ({_OTHERS})",
        purse=purse,
        gateway=gateway,
    )
    if asked:
        await _notify(connection, RECALLED + purse)
    return asked


async def unanswered(connection: AsyncConnection, purse: str, gateway: str) -> bool:
    """True while a living gateway has not said what it can spare."""
    query = text(f"SELECT EXISTS ({_OTHERS} AND leases.recalled)")
    values = {"purse": purse, "gateway": gateway}
    return bool((await connection.execute(query, values)).scalar_one())


async def give_back(connection: AsyncConnection, purse: str, gateway: str, nanos: int) -> None:
    """Make the gateway's lease smaller, by 0 too: that answers a recall."""
    await _say(
        connection,
        "UPDATE leases SET nanos = nanos - :nanos, recalled = FALSE "
        "WHERE purse = :purse AND gateway = :gateway",
        purse=purse,
        gateway=gateway,
        nanos=nanos,
    )
    await _notify(connection, RETURNED + purse)


async def recalled(connection: AsyncConnection, gateway: str) -> Sequence[str]:
    """The purses of which others want what this gateway does not need."""
    query = text("SELECT purse FROM leases WHERE gateway = :gateway AND recalled")
    return [row[0] for row in await connection.execute(query, {"gateway": gateway})]


async def outside(connection: AsyncConnection, purse: str) -> int:
    """What all gateways together have leased."""
    query = text("SELECT COALESCE(SUM(nanos), 0)::bigint FROM leases WHERE purse = :purse")
    return int((await connection.execute(query, {"purse": purse})).scalar_one())


async def _notify(connection: AsyncConnection, notice: str) -> None:
    values = {"channel": CHANNEL, "notice": notice}
    await connection.execute(text("SELECT pg_notify(:channel, :notice)"), values)


async def _say(connection: AsyncConnection, sql: str, **values: object) -> int:
    return (await connection.execute(text(sql), values)).rowcount
