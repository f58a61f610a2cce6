"""Duties: what exactly one gateway does. A row for each, held for a time."""

from __future__ import annotations

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables_usage import duties

_LOCK = text(
    # An update that changes nothing, for the lock of the row.
    "INSERT INTO duties (name, gateway, held_until_unix_ns, done_unix_ns) VALUES (:name, '', 0, 0) "
    "ON CONFLICT (name) DO UPDATE SET gateway = duties.gateway"
)


async def lock(connection: AsyncConnection, name: str) -> None:
    """Wait until no other transaction holds this name; until the end of this one."""
    await connection.execute(_LOCK, {"name": name})


async def take(
    connection: AsyncConnection, name: str, gateway: str, now_unix_ns: int, held_ns: int
) -> bool:
    """Take a duty for a time; False while another gateway holds it."""
    await lock(connection, name)
    free = duties.c.held_until_unix_ns <= now_unix_ns
    taken = await connection.execute(
        update(duties)
        .where(duties.c.name == name, free | (duties.c.gateway == gateway))
        .values(gateway=gateway, held_until_unix_ns=now_unix_ns + held_ns)
    )
    return taken.rowcount == 1


async def done_unix_ns(connection: AsyncConnection, name: str) -> int:
    """When it was last done; 0: never."""
    query = select(duties.c.done_unix_ns).where(duties.c.name == name)
    return int((await connection.execute(query)).scalar() or 0)


async def done(connection: AsyncConnection, name: str, now_unix_ns: int) -> None:
    """It was done; the next one may begin."""
    await connection.execute(
        update(duties)
        .where(duties.c.name == name)
        .values(done_unix_ns=now_unix_ns, held_until_unix_ns=now_unix_ns)
    )
