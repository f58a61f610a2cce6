"""Voices that accounts have added, in the database."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables_voices import voices


class VoiceRow(msgspec.Struct, frozen=True):
    """One voice, without what was recorded of it."""

    id: str
    account_id: str
    name: str
    description: str
    created_unix_ns: int
    updated_unix_ns: int


_SHOWN = [column for column in voices.c if column.name != "recordings"]


async def add(connection: AsyncConnection, row: VoiceRow, recordings: bytes) -> None:
    """A new one."""
    values = {**msgspec.structs.asdict(row), "recordings": recordings}
    await connection.execute(insert(voices).values(**values))


async def count(connection: AsyncConnection, account_id: str) -> int:
    """How many an account has."""
    query = select(func.count()).where(voices.c.account_id == account_id)
    return int((await connection.execute(query)).scalar_one())


async def listed(connection: AsyncConnection, account_id: str) -> Sequence[VoiceRow]:
    """Those of an account, the oldest first."""
    query = select(*_SHOWN).where(voices.c.account_id == account_id)
    found = await connection.execute(query.order_by(voices.c.created_unix_ns, voices.c.id))
    return [VoiceRow(*row) for row in found]


async def get(connection: AsyncConnection, account_id: str, voice_id: str) -> VoiceRow | None:
    """One of an account's."""
    mine = (voices.c.account_id == account_id) & (voices.c.id == voice_id)
    row = (await connection.execute(select(*_SHOWN).where(mine))).first()
    return None if row is None else VoiceRow(*row)


async def recordings(connection: AsyncConnection, account_id: str, voice_id: str) -> bytes | None:
    """What was recorded of it."""
    mine = (voices.c.account_id == account_id) & (voices.c.id == voice_id)
    found = (await connection.execute(select(voices.c.recordings).where(mine))).scalar()
    return None if found is None else bytes(found)


async def save(connection: AsyncConnection, row: VoiceRow) -> None:
    """Its name and its description."""
    mine = voices.c.id == row.id
    values = msgspec.structs.asdict(row)
    await connection.execute(update(voices).where(mine).values(**values))


async def remove(connection: AsyncConnection, account_id: str, voice_id: str) -> bool:
    """Whether it was there."""
    mine = (voices.c.account_id == account_id) & (voices.c.id == voice_id)
    return (await connection.execute(delete(voices).where(mine))).rowcount > 0


async def remove_all(connection: AsyncConnection, account_id: str) -> None:
    """Those of an account that is deleted."""
    await connection.execute(delete(voices).where(voices.c.account_id == account_id))
