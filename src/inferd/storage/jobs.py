"""Jobs in the database."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.rows import JobRow
from inferd.storage.tables import jobs


async def add(connection: AsyncConnection, row: JobRow) -> None:
    """A new one."""
    await connection.execute(insert(jobs).values(**msgspec.structs.asdict(row)))


async def get(connection: AsyncConnection, job_id: str, account_id: str) -> JobRow | None:
    """One of the account's jobs."""
    query = select(jobs).where(jobs.c.id == job_id, jobs.c.account_id == account_id)
    row = (await connection.execute(query)).first()
    return None if row is None else JobRow(*row)


async def unfinished(connection: AsyncConnection, gateway: str = "") -> Sequence[JobRow]:
    """What a gateway's process that is gone has left, the oldest first."""
    query = (
        select(jobs)
        .where(jobs.c.status.in_(("queued", "running")), jobs.c.gateway == gateway)
        .order_by(jobs.c.created_unix_ns)
    )
    return [JobRow(*row) for row in await connection.execute(query)]


async def save(connection: AsyncConnection, row: JobRow) -> None:
    """What it has come to."""
    values = msgspec.structs.asdict(row)
    await connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values))


async def forget(connection: AsyncConnection, before_unix_ns: int) -> None:
    """Delete what ended before a moment."""
    await connection.execute(delete(jobs).where(jobs.c.ended_unix_ns < before_unix_ns))


async def hand_over(connection: AsyncConnection, gateway: str, heir: str) -> None:
    """What a gateway that will not come back has left is another's to finish."""
    await connection.execute(update(jobs).where(jobs.c.gateway == gateway).values(gateway=heir))
