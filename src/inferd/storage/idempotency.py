"""Calls with an Idempotency-Key in the database: who runs one, and what was answered."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import and_, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables_budgets import gateways, idempotency

SWEPT_MAX = 1000
"""Rows that one transaction forgets."""


class KeyedCall(msgspec.Struct, frozen=True):
    """A call under a key of an account."""

    account_id: str
    key: str
    fingerprint: bytes
    request_id: str
    gateway: str
    epoch_unix_ns: int
    """Which life of the gateway runs it, or ran it."""
    created_unix_ns: int
    status: int | None = None
    """Of the answer; None while the call runs."""
    headers: bytes | None = None
    body: bytes | None = None
    """None of an answered call: it was too large to be kept."""
    body_bytes: int = 0


async def claim(connection: AsyncConnection, call: KeyedCall, expired_unix_ns: int) -> bool:
    """Begin a call; False if its key is taken. What began before `expired_unix_ns` is forgotten."""
    mine = _of(call.account_id, call.key)
    await connection.execute(
        delete(idempotency).where(mine, idempotency.c.created_unix_ns < expired_unix_ns)
    )
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    added = await connection.execute(
        dialect.insert(idempotency)
        .values(**msgspec.structs.asdict(call))
        .on_conflict_do_nothing(index_elements=["account_id", "key"])
    )
    return added.rowcount == 1


async def get(connection: AsyncConnection, account_id: str, key: str) -> KeyedCall | None:
    """The call of a key."""
    query = select(idempotency).where(_of(account_id, key))
    found = (await connection.execute(query)).first()
    return None if found is None else KeyedCall(*found)


async def take_over(connection: AsyncConnection, dead: KeyedCall, call: KeyedCall) -> bool:
    """Begin anew what a dead process ran; False if somebody was faster."""
    change = (
        update(idempotency)
        .where(
            _of(dead.account_id, dead.key),
            idempotency.c.request_id == dead.request_id,
            idempotency.c.gateway == dead.gateway,
            idempotency.c.epoch_unix_ns == dead.epoch_unix_ns,
            idempotency.c.status.is_(None),
        )
        .values(
            request_id=call.request_id,
            gateway=call.gateway,
            epoch_unix_ns=call.epoch_unix_ns,
            created_unix_ns=call.created_unix_ns,
        )
    )
    return (await connection.execute(change)).rowcount == 1


async def keep(connection: AsyncConnection, call: KeyedCall) -> None:
    """Store the answer."""
    await connection.execute(
        update(idempotency)
        .where(_of(call.account_id, call.key), idempotency.c.request_id == call.request_id)
        .values(
            status=call.status,
            headers=call.headers,
            body=call.body,
            body_bytes=call.body_bytes,
        )
    )


async def forget(connection: AsyncConnection, call: KeyedCall) -> None:
    """Let the key be used anew: the call came to nothing."""
    await connection.execute(
        delete(idempotency).where(
            _of(call.account_id, call.key), idempotency.c.request_id == call.request_id
        )
    )


async def gateway_of(connection: AsyncConnection, gateway: str) -> tuple[int, int] | None:
    """A gateway's epoch, and when it was seen last; None if there is none."""
    query = select(gateways.c.epoch_unix_ns, gateways.c.seen_unix_ns).where(
        gateways.c.id == gateway
    )
    found = (await connection.execute(query)).first()
    return None if found is None else (found[0], found[1])


async def sweep(connection: AsyncConnection, before_unix_ns: int) -> bool:
    """Forget calls that began before a moment; True if there are more of them."""
    old = (
        select(idempotency.c.account_id, idempotency.c.key)
        .where(idempotency.c.created_unix_ns < before_unix_ns)
        .limit(SWEPT_MAX)
    )
    rows = (await connection.execute(old)).all()
    for account_id, key in rows:
        await connection.execute(delete(idempotency).where(_of(account_id, key)))
    return len(rows) == SWEPT_MAX


async def sizes(connection: AsyncConnection) -> Sequence[tuple[str, int, int]]:
    """Account, its keys, the bytes of their answers."""
    query = select(
        idempotency.c.account_id, func.count(), func.sum(idempotency.c.body_bytes)
    ).group_by(idempotency.c.account_id)
    return [(row[0], row[1], int(row[2])) for row in await connection.execute(query)]


async def drop_bodies(connection: AsyncConnection, account_id: str, nbytes: int) -> None:
    """Forget the oldest answers of an account, of so many bytes together; their keys stay."""
    oldest = (
        select(idempotency.c.key, idempotency.c.body_bytes)
        .where(idempotency.c.account_id == account_id, idempotency.c.body_bytes > 0)
        .order_by(idempotency.c.created_unix_ns)
    )
    dropped = 0
    for key, size in (await connection.execute(oldest)).all():
        if dropped >= nbytes:
            break
        change = update(idempotency).where(_of(account_id, key))
        await connection.execute(change.values(body=None, body_bytes=0))
        dropped += size


def _of(account_id: str, key: str):  # noqa: ANN202 SQLAlchemy's own type
    return and_(idempotency.c.account_id == account_id, idempotency.c.key == key)
