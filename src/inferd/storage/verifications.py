"""What the ledger's nightly checks found."""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables_usage import verifications

KEPT_NS = 90 * 86_400_000_000_000


class VerificationRow(msgspec.Struct, frozen=True):
    """One check of the whole ledger."""

    id: str
    ended_unix_ns: int
    entries: int
    differences: int
    detail: str
    """Sentences, one on each line."""


async def add(connection: AsyncConnection, row: VerificationRow) -> None:
    """Keep it; forget what is older than three months."""
    old = verifications.c.ended_unix_ns < row.ended_unix_ns - KEPT_NS
    await connection.execute(delete(verifications).where(old))
    await connection.execute(insert(verifications).values(**msgspec.structs.asdict(row)))


async def latest(connection: AsyncConnection) -> VerificationRow | None:
    """The last one; None: there was none yet."""
    query = select(verifications).order_by(verifications.c.ended_unix_ns.desc()).limit(1)
    found = (await connection.execute(query)).first()
    return None if found is None else VerificationRow(*found)
