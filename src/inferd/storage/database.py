"""The SQLite database: how it is opened, and how it is brought up to date."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from inferd.errors import Unavailable

HEAD = "0009"
"""The newest migration. A test compares it with the files."""

BUSY_TIMEOUT_MS = 5000


def pragmas(*, power_safe: bool) -> tuple[str, ...]:
    """What every connection sets. NORMAL survives the process's death, FULL a power cut."""
    return (
        "PRAGMA journal_mode=WAL",
        f"PRAGMA synchronous={'FULL' if power_safe else 'NORMAL'}",
        f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
        "PRAGMA foreign_keys=ON",
    )


class Database:
    """Async connections to one SQLite file, for everything but the ledger's writer."""

    def __init__(self, path: Path, *, power_safe: bool = False) -> None:
        self.path = path
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=4)
        statements = pragmas(power_safe=power_safe)

        @event.listens_for(self._engine.sync_engine, "connect")
        def prepare(connection: Any, _: Any) -> None:  # pyright: ignore[reportUnusedFunction]
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            cursor.close()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection]:
        """A connection to read with."""
        async with self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction: committed at the end, rolled back on an error."""
        async with self._engine.begin() as connection:
            yield connection

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def migrate(path: Path) -> None:
    """Bring the file to HEAD; make it if it is not there. Raises Unavailable for a newer one."""
    version = _version(path)
    if version == HEAD:
        return
    if version is not None and version > HEAD:
        raise Unavailable(
            f"The database {path.name} was written by a newer inferd (schema {version}, "
            f"this one knows {HEAD}). Upgrade inferd."
        )
    _upgrade(path)


def _version(path: Path) -> str | None:
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        raise Unavailable(f"{path.name} is not a readable database: {error}.") from error
    finally:
        connection.close()
    return str(row[0]) if row else None


def _upgrade(path: Path) -> None:
    # Alembic costs 0.2 s to import and is needed once for each version only.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    # SQLite gives its other files the mode of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
