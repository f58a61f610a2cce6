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
    await _lightly(connection)
    changed = await _say(
        connection,
        f"UPDATE gateways SET seen_unix_ns = {_NOW} WHERE id = :gateway AND epoch_unix_ns = :epoch",
        gateway=gateway,
        epoch=epoch_unix_ns,
    )
    if changed != 1:
        raise _replaced(gateway)


async def require_own(connection: AsyncConnection, gateway: str, epoch_unix_ns: int) -> None:
    """Raise Unavailable if another process took the gateway's name."""
    query = text("SELECT 1 FROM gateways WHERE id = :gateway AND epoch_unix_ns = :epoch")
    values = {"gateway": gateway, "epoch": epoch_unix_ns}
    if (await connection.execute(query, values)).first() is None:
        raise _replaced(gateway)


async def take(
    connection: AsyncConnection, purse: str, gateway: str, wanted: int, limit: int | None
) -> Taken:
    """Lease at least `wanted` nano-dollars, or all that is free. Nothing without a limit."""
    values = {"purse": purse, "gateway": gateway}
    free, elsewhere = await _free(connection, purse, gateway, limit)
    if not free:
        # Nobody's settlement waits for the refusals of an empty purse.
        return Taken(0, elsewhere)
    await _say(
        connection,
        "INSERT INTO purses (key, spent_nanos) VALUES (:purse, 0) ON CONFLICT (key) DO NOTHING",
        purse=purse,
    )
    await connection.execute(text("SELECT 1 FROM purses WHERE key = :purse FOR UPDATE"), values)
    free, elsewhere = await _free(connection, purse, gateway, limit)
    nanos = min(free, max(wanted, free // SHARE))
    if nanos:
        await _say(
            connection,
            "INSERT INTO leases (purse, gateway, nanos) VALUES (:purse, :gateway, :nanos) "
            "ON CONFLICT (purse, gateway) DO UPDATE SET nanos = leases.nanos + excluded.nanos",
            nanos=nanos,
            **values,
        )
    else:
        await _lightly(connection)
    return Taken(nanos, elsewhere)


async def _free(
    connection: AsyncConnection, purse: str, gateway: str, limit: int | None
) -> tuple[int, int]:
    """(what nobody has leased or spent, what other gateways have leased)."""
    query = text(
        "SELECT COALESCE((SELECT spent_nanos FROM purses WHERE key = :purse), 0), "
        "COALESCE(SUM(nanos), 0)::bigint, "
        "COALESCE(SUM(nanos) FILTER (WHERE gateway <> :gateway), 0)::bigint "
        "FROM leases WHERE purse = :purse"
    )
    values = {"purse": purse, "gateway": gateway}
    spent, leased, elsewhere = (await connection.execute(query, values)).one()
    return (0 if limit is None else max(0, limit - spent - leased)), elsewhere


async def recall(connection: AsyncConnection, purse: str, gateway: str) -> bool:
    """Ask the other living gateways for what they do not need; False if there is none to ask."""
    values = {"purse": purse, "gateway": gateway}
    asked = f"{_OTHERS} AND leases.nanos > 0"
    if not (await connection.execute(text(f"SELECT EXISTS ({asked})"), values)).scalar_one():
        return False
    await _lightly(connection)
    await _say(
        connection,
        "UPDATE leases SET recalled = TRUE WHERE purse = :purse AND gateway IN "
        # In one order, so that two recalls never wait for each other.
        f"({asked} AND NOT leases.recalled ORDER BY leases.gateway FOR UPDATE OF leases)",
        **values,
    )
    await _notify(connection, RECALLED + purse)
    return True


async def unanswered(connection: AsyncConnection, purse: str, gateway: str) -> bool:
    """True while a living gateway has not said what it can spare."""
    query = text(f"SELECT EXISTS ({_OTHERS} AND leases.recalled)")
    values = {"purse": purse, "gateway": gateway}
    return bool((await connection.execute(query, values)).scalar_one())


async def give_back(connection: AsyncConnection, purse: str, gateway: str, nanos: int) -> None:
    """Make the gateway's lease smaller, by 0 too: that answers a recall."""
    await _lightly(connection)
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


async def _lightly(connection: AsyncConnection) -> None:
    """Do not wait for the disk: what is lost with the server's power costs nobody money."""
    await connection.execute(text("SET LOCAL synchronous_commit TO OFF"))


def _replaced(gateway: str) -> Unavailable:
    return Unavailable(f"Another process runs as gateway {gateway}: this one must stop.")


async def _notify(connection: AsyncConnection, notice: str) -> None:
    values = {"channel": CHANNEL, "notice": notice}
    await connection.execute(text("SELECT pg_notify(:channel, :notice)"), values)


async def _say(connection: AsyncConnection, sql: str, **values: object) -> int:
    return (await connection.execute(text(sql), values)).rowcount
