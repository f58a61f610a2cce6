"""Voices that accounts have added: each is its account's alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from inferd import ids
from inferd.access import audit
from inferd.access.caller import Caller
from inferd.clock import Clock
from inferd.errors import BadRequest, NotFound
from inferd.storage import accounts, voices
from inferd.storage.database import Database
from inferd.storage.voices import VoiceRow

VOICES_MAX = 100
"""Of an account."""
RECORDINGS_MAX = 10
RECORDINGS_BYTES_MAX = 10_000_000
"""Of one voice, together; whoever takes them in keeps to it. More than a minute of any format,
where some seconds are enough."""
OPEN_MAX = 4
"""Recordings of so many voices lie in memory at once."""
_ID = re.compile(r"voice_[0-9A-Za-z]{1,40}")


class VoiceNotFound(NotFound):
    """There is no voice of this name."""

    code = "voice_not_found"


class Recording(NamedTuple):
    """A file as it was sent."""

    mime: str
    """Sniffed."""
    content: bytes


class AddedVoices:
    """The voices of all accounts."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._few = asyncio.Semaphore(OPEN_MAX)

    async def add(
        self, caller: Caller, name: str, description: str, recordings: Sequence[Recording]
    ) -> VoiceRow:
        """A new one. BadRequest where there is no place for it."""
        if not 1 <= len(recordings) <= RECORDINGS_MAX:
            raise BadRequest(f"A voice has 1 to {RECORDINGS_MAX} recordings.", param="files")
        now = self._clock.unix_ns()
        row = VoiceRow(ids.sortable("voice"), caller.account_id, name, description, now, now)
        async with self._database.writing() as connection:
            # Of two at once, each sees the other.
            await accounts.locked(connection, caller.account_id)
            if await voices.count(connection, caller.account_id) >= VOICES_MAX:
                raise BadRequest(f"An account has at most {VOICES_MAX} voices of its own.")
            await voices.add(connection, row, msgspec.msgpack.encode(recordings))
            await audit.write(connection, caller, "voice.add", row.id, {"name": name})
        return row

    async def listed(self, account_id: str) -> Sequence[VoiceRow]:
        """Those of an account, the oldest first."""
        async with self._database.reading() as connection:
            return await voices.listed(connection, account_id)

    async def get(self, account_id: str, voice_id: str) -> VoiceRow:
        """One of an account's. Raises VoiceNotFound."""
        _check(voice_id)
        async with self._database.reading() as connection:
            return _there(await voices.get(connection, account_id, voice_id))

    @asynccontextmanager
    async def recordings(
        self, account_id: str, voice_id: str
    ) -> AsyncGenerator[Sequence[Recording]]:
        """What was recorded of it, of few voices at a time. Raises VoiceNotFound."""
        _check(voice_id)
        async with self._few:
            async with self._database.reading() as connection:
                found = await voices.recordings(connection, account_id, voice_id)
            if found is None:
                raise _unknown()
            yield msgspec.msgpack.decode(found, type=list[Recording])

    async def rename(
        self, caller: Caller, voice_id: str, name: str | None, description: str | None
    ) -> VoiceRow:
        """Say something else of it; None leaves it. Raises VoiceNotFound."""
        _check(voice_id)
        async with self._database.writing() as connection:
            row = _there(await voices.get(connection, caller.account_id, voice_id))
            row = msgspec.structs.replace(
                row,
                name=row.name if name is None else name,
                description=row.description if description is None else description,
                updated_unix_ns=self._clock.unix_ns(),
            )
            await voices.save(connection, row)
            await audit.write(connection, caller, "voice.rename", row.id, {"name": row.name})
        return row

    async def remove(self, caller: Caller, voice_id: str) -> None:
        """Forget it and its recordings. Raises VoiceNotFound."""
        _check(voice_id)
        async with self._database.writing() as connection:
            if not await voices.remove(connection, caller.account_id, voice_id):
                raise _unknown()
            await audit.write(connection, caller, "voice.remove", voice_id)


def _check(voice_id: str) -> None:
    """What cannot be a name never reaches the database."""
    if not _ID.fullmatch(voice_id):
        raise _unknown()


def _there(row: VoiceRow | None) -> VoiceRow:
    if row is None:
        raise _unknown()
    return row


def _unknown() -> VoiceNotFound:
    return VoiceNotFound("There is no such voice.", param="voice_id")
