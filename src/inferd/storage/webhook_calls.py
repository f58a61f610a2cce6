"""Native calls that are answered by a webhook, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rollups import View, seen
from inferd.storage.tables_webhooks import webhook_calls

CallStatus = Literal["queued", "running", "succeeded", "failed"]
Delivery = Literal["waiting", "pending", "delivered", "failed"]
"""waiting: the answer is not there yet; pending: an attempt is due; failed: no more attempts."""


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One try to deliver."""

    at_unix_ns: int
    status: int
    """What the receiver answered; 0: nothing."""
    error: str | None
    """Why it did not arrive; None: it did."""


class CallRow(msgspec.Struct, frozen=True):
    """A call, its answer and its delivery."""

    request_id: str
    """Of the answer and of its ledger entry: the same after a crash, so that it is billed once."""
    account_id: str
    token_id: str
    jwt_id: str | None
    jwt_limit_nanos: int | None
    path: str
    query: str
    headers: bytes
    """Pairs, as msgpack."""
    body: str
    """Name of the blob of what was asked."""
    answer: str | None
    """Name of the blob of what is delivered."""
    webhook: str
    """Where to."""
    status: CallStatus
    created_unix_ns: int
    ended_unix_ns: int | None
    gateway: str
    """Which one runs and delivers it; "": there is one alone."""
    delivery: Delivery
    due_unix_ns: int | None
    attempts: bytes
    """Attempts, the oldest first, as msgpack."""

    def tried(self) -> list[Attempt]:
        """All attempts so far, the oldest first."""
        return msgspec.msgpack.decode(self.attempts, type=list[Attempt])


async def add(connection: AsyncConnection, row: CallRow) -> None:
    """A new one."""
    await connection.execute(insert(webhook_calls).values(**msgspec.structs.asdict(row)))


async def save(connection: AsyncConnection, row: CallRow) -> None:
    """What it has come to."""
    values = msgspec.structs.asdict(row)
    mine = webhook_calls.c.request_id == row.request_id
    await connection.execute(update(webhook_calls).where(mine).values(**values))


async def save_delivery(connection: AsyncConnection, row: CallRow) -> None:
    """Where its delivery stands; an attempt that ends meanwhile keeps its place in the log."""
    await _set(connection, row, "delivery", "due_unix_ns")


async def save_attempt(connection: AsyncConnection, row: CallRow) -> None:
    """The same, and what was tried."""
    await _set(connection, row, "delivery", "due_unix_ns", "attempts")


async def _set(connection: AsyncConnection, row: CallRow, *names: str) -> None:
    mine = webhook_calls.c.request_id == row.request_id
    values = {name: getattr(row, name) for name in names}
    await connection.execute(update(webhook_calls).where(mine).values(**values))


async def get(connection: AsyncConnection, request_id: str, view: View) -> CallRow | None:
    """One of the calls that somebody may see."""
    query = select(webhook_calls).where(webhook_calls.c.request_id == request_id)
    row = (await connection.execute(seen(query, webhook_calls, view))).first()
    return None if row is None else CallRow(*row)


async def listed(connection: AsyncConnection, view: View, limit: int) -> Sequence[CallRow]:
    """The calls that somebody may see, the newest first."""
    query = seen(select(webhook_calls), webhook_calls, view)
    query = query.order_by(webhook_calls.c.created_unix_ns.desc()).limit(limit)
    return [CallRow(*row) for row in await connection.execute(query)]


async def unfinished(connection: AsyncConnection, gateway: str) -> Sequence[CallRow]:
    """What a gateway's process that is gone has left, the oldest first."""
    query = (
        select(webhook_calls)
        .where(
            webhook_calls.c.status.in_(("queued", "running")), webhook_calls.c.gateway == gateway
        )
        .order_by(webhook_calls.c.created_unix_ns)
    )
    return [CallRow(*row) for row in await connection.execute(query)]


async def due(
    connection: AsyncConnection, gateway: str, now_unix_ns: int, limit: int
) -> Sequence[CallRow]:
    """A gateway's calls of which an attempt is due, the longest due first."""
    query = (
        select(webhook_calls)
        .where(webhook_calls.c.due_unix_ns <= now_unix_ns, webhook_calls.c.gateway == gateway)
        .order_by(webhook_calls.c.due_unix_ns)
        .limit(limit)
    )
    return [CallRow(*row) for row in await connection.execute(query)]


async def next_due(connection: AsyncConnection, gateway: str, now_unix_ns: int) -> int | None:
    """When a gateway's next attempt after now is due; None: none is planned."""
    query = select(func.min(webhook_calls.c.due_unix_ns)).where(
        webhook_calls.c.gateway == gateway, webhook_calls.c.due_unix_ns > now_unix_ns
    )
    return (await connection.execute(query)).scalar()


async def forget(connection: AsyncConnection, before_unix_ns: int) -> None:
    """Delete what ended before a moment and is not to be delivered any more."""
    await connection.execute(
        delete(webhook_calls).where(
            webhook_calls.c.ended_unix_ns < before_unix_ns, webhook_calls.c.due_unix_ns.is_(None)
        )
    )


async def hand_over(connection: AsyncConnection, gateway: str, heir: str) -> None:
    """What a gateway that will not come back has left is another's to finish."""
    mine = webhook_calls.c.gateway == gateway
    await connection.execute(update(webhook_calls).where(mine).values(gateway=heir))
