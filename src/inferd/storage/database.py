"""The database: SQLite or PostgreSQL, how it is opened, and how its absence is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from inferd.errors import BadRequest
from inferd.storage import postgres
from inferd.storage.database_url import is_postgres, sqlite_path, url_of
from inferd.storage.migrate import HEAD, migrate

__all__ = ["BUSY_TIMEOUT_MS", "HEAD", "Database", "migrate", "pragmas"]

BUSY_TIMEOUT_MS = 5000
POSTGRES_CONNECTIONS = 8
"""That one gateway keeps, besides its ledger's."""
AWAY_SECONDS = 0.5
"""A server that did not answer at all is not tried again for so long."""
_SQLITE_AWAY = frozenset({5, 6, 8, 10, 11, 13, 14, 26})
"""Busy, locked, read-only, I/O error, corrupt, full, cannot open, no database."""

Dialect = Literal["sqlite", "postgresql"]


def pragmas(*, power_safe: bool) -> tuple[str, ...]:
    """What every connection sets. NORMAL survives the process's death, FULL a power cut."""
    return (
        "PRAGMA journal_mode=WAL",
        f"PRAGMA synchronous={'FULL' if power_safe else 'NORMAL'}",
        f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
        "PRAGMA foreign_keys=ON",
    )


class Database:
    """Async connections, for everything but the ledger's writer.

    `where` is a file of SQLite or a URL: `sqlite:///PATH`, `postgresql://…`. A database that is
    away, locked or full is Unavailable, whatever was asked of it.
    """

    def __init__(
        self, where: Path | str, *, directory: Path | None = None, power_safe: bool = False
    ) -> None:
        self.url = url_of(where)
        self.dialect: Dialect = "postgresql" if is_postgres(self.url) else "sqlite"
        if self.dialect == "sqlite":
            self.engine = _sqlite_engine(self.path, power_safe=power_safe)
            self.directory = directory or self.path.parent
        else:
            self.engine = _postgres_engine(self.url)
            assert directory is not None, "beside PostgreSQL a gateway has its own directory"
            self.directory = directory
        """This gateway's own files: its journal, its blobs."""
        self._away_until_seconds = 0.0

    @property
    def path(self) -> Path:
        """The file, of SQLite."""
        return sqlite_path(self.url)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection]:
        """A connection to read with. Raises Unavailable while the database is away."""
        with self.absence_told():
            async with AsyncExitStack() as stack:
                yield await self._in_time(stack, self.engine.connect())

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction: committed at the end, rolled back on an error. Raises Unavailable."""
        with self.absence_told():
            async with AsyncExitStack() as stack:
                yield await self._in_time(stack, self.engine.begin())

    async def close(self) -> None:
        """Close all connections; a server that does not say goodbye is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(postgres.CONNECT_SECONDS_MAX):
                await self.engine.dispose()

    async def _in_time(
        self, stack: AsyncExitStack, opening: AbstractAsyncContextManager[AsyncConnection]
    ) -> AsyncConnection:
        """Have a connection, or know soon that there is none: whoever comes waits for it."""
        if self.dialect == "sqlite":
            return await stack.enter_async_context(opening)
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until_seconds:
            raise TimeoutError("It did not answer a moment ago.")
        try:
            async with asyncio.timeout(postgres.CONNECT_SECONDS_MAX):
                return await stack.enter_async_context(opening)
        except TimeoutError:
            self._away_until_seconds = loop.time() + AWAY_SECONDS
            raise

    @contextmanager
    def absence_told(self) -> Generator[None]:
        """Whatever the driver raises because the database is away is Unavailable."""
        try:
            yield
        except (TimeoutError, ConnectionError, PoolTimeout) as error:
            raise postgres.away(self.url, error) from error
        except DBAPIError as error:
            if _speaks_of_absence(error):
                raise postgres.away(self.url, error) from error
            if getattr(error.orig, "sqlstate", None) == _NO_TEXT:
                raise BadRequest("A text holds a NUL character.") from error
            raise


_NO_TEXT = "22021"
"""PostgreSQL stores every character but NUL."""


def _speaks_of_absence(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return (code & 0xFF) in _SQLITE_AWAY
    return postgres.is_away_code(getattr(error.orig, "sqlstate", None))


def _sqlite_engine(path: Path, *, power_safe: bool) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=4)
    statements = pragmas(power_safe=power_safe)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()

    return engine


def _postgres_engine(url: str) -> AsyncEngine:
    postgres.require_driver()

    async def opened() -> Any:
        return await postgres.connect(url)

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=opened,
        pool_size=POSTGRES_CONNECTIONS,
        max_overflow=0,
        pool_timeout=postgres.CONNECT_SECONDS_MAX,
        # A server that was restarted must not cost one failed request for each connection.
        pool_pre_ping=True,
        # Values are callers' own, and errors go to the log.
        hide_parameters=True,
    )
