"""A ledger's database for tests of its writers: SQLite or PostgreSQL, read back and taken away."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import text

from inferd.clock import Clock, ManualClock
from inferd.storage import entries
from inferd.storage.database import Database
from inferd.storage.database_url import is_postgres, sqlite_path
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.postgres_writer import PostgresWriter
from inferd.storage.rows import EntryRow
from tests.servers import PostgresServer

PRICE = (
    "INSERT INTO prices (id, model, input_rate, cached_rate, output_rate, valid_from_unix_ns) "
    "VALUES (1, 'a/b', 1, 1, 1, 0)"
)


def entry(number: int, **changes: object) -> EntryRow:
    """An entry that costs 7 nano-dollars."""
    row = EntryRow(
        request_id=f"R{number:023d}",
        account_id="acc",
        token_id="tok",
        model="a/b",
        task="text-generation",
        dialect="openai",
        streamed=False,
        status="succeeded",
        stage="done",
        error_code=None,
        end_user=None,
        input_tokens=3,
        cached_tokens=1,
        output_tokens=2,
        estimated=False,
        price_id=1,
        cost_nanos=7,
        created_unix_ns=1,
        settled_unix_ns=2,
        queue_ms=0,
        first_event_ms=None,
        runtime_ms=4,
    )
    return msgspec.structs.replace(row, **changes)


async def until(holds: Callable[[], bool]) -> None:
    """Let the event loop turn until something holds; ten seconds at most."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


def writer_of(
    url: str, directory: Path, clock: Clock | None = None
) -> LedgerWriter | PostgresWriter:
    """The writer that goes with a database."""
    if is_postgres(url):
        return PostgresWriter(url, directory, clock=clock)
    return LedgerWriter(sqlite_path(url), clock=clock)


class Books:
    """One database with one price, and what is in it."""

    def __init__(self, url: str, directory: Path, server: PostgresServer | None) -> None:
        self.url = url
        self.directory = directory
        self._server = server
        self._blocker: sqlite3.Connection | None = None

    async def make(self) -> None:
        """The price."""
        database = Database(self.url, directory=self.directory)
        async with database.writing() as connection:
            await connection.execute(text(PRICE))
        await database.close()

    def writer(self, now_unix_ns: int = 0) -> LedgerWriter | PostgresWriter:
        """A writer, not started yet; it lives in the month of `entry`."""
        return writer_of(self.url, self.directory, ManualClock(now_unix_ns))

    async def rows(self) -> list[EntryRow]:
        """All entries by request."""
        database = Database(self.url, directory=self.directory)
        async with database.reading() as connection:
            found = [row async for row in entries.every(connection)]
        await database.close()
        return sorted(found, key=lambda row: row.request_id)

    async def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of any question."""
        database = Database(self.url, directory=self.directory)
        async with database.reading() as connection:
            found = [tuple(row) for row in await connection.execute(text(statement))]
        await database.close()
        return found

    async def go_away(self) -> None:
        """From now on the database takes nothing."""
        if self._server is None:
            self._blocker = sqlite3.connect(sqlite_path(self.url), isolation_level=None)
            self._blocker.execute("BEGIN IMMEDIATE")
            return
        name = self.url.rpartition("/")[2]
        await self._server.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await self._server.run(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )

    async def come_back(self) -> None:
        """It takes everything again."""
        if self._server is None:
            assert self._blocker is not None
            self._blocker.execute("ROLLBACK")
            self._blocker.close()
            return
        name = self.url.rpartition("/")[2]
        await self._server.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
