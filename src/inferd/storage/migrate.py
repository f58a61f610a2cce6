"""Brings a database to the newest schema: once, however many gateways start at the same time."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import Unavailable
from inferd.storage import postgres
from inferd.storage.database_url import is_postgres, shown, sqlite_path, url_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

HEAD = "0013"
"""The newest migration. A test compares it with the files."""

_LOCK = 0x1A_FE_4D
"""PostgreSQL's advisory lock that migrations hold: of the gateways that start, one migrates."""


def migrate(where: Path | str) -> None:
    """Bring it to HEAD; a file of SQLite is made if it is not there.

    Raises Unavailable for a newer schema and for a database that cannot be reached.
    """
    url = url_of(where)
    if not is_postgres(url):
        _migrate_sqlite(sqlite_path(url))
        return
    # A thread of its own: whoever starts up may be inside an event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(_migrate_postgres(url))).result()


def check(url: str) -> None:
    """Change nothing. Raises Unavailable if PostgreSQL cannot be reached or is newer than we."""
    with ThreadPoolExecutor(1) as thread:
        version = thread.submit(lambda: asyncio.run(_postgres_version(url))).result()
    _is_current(shown(url), version)


def _is_current(name: str, version: str | None) -> bool:
    if version is not None and version > HEAD:
        raise Unavailable(
            f"The database {name} was written by a newer inferd (schema {version}, "
            f"this one knows {HEAD}). Upgrade inferd."
        )
    return version == HEAD


def _migrate_sqlite(path: Path) -> None:
    if _is_current(path.name, _sqlite_version(path)):
        return
    from sqlalchemy import create_engine, event

    # SQLite gives its other files the mode of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(f"sqlite:///{path}")
    # The driver would commit before each change of a table: a migration that is interrupted must
    # leave the file as it was.
    event.listen(engine, "connect", _no_commits_of_its_own)
    event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            _upgrade(connection)
    finally:
        engine.dispose()


# The driver's connection.
def _no_commits_of_its_own(connection: Any, _: object) -> None:
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _sqlite_version(path: Path) -> str | None:
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise Unavailable(f"{path.name} cannot be read: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise Unavailable(f"{path.name} is not a readable database: {error}.") from error
    finally:
        connection.close()
    return str(row[0]) if row else None


async def _migrate_postgres(url: str) -> None:
    if _is_current(shown(url), await _postgres_version(url)):
        return
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    # Filling tables may take long, and so may the wait for another gateway that does it.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: postgres.connect(url, statement_seconds=None),
        poolclass=NullPool,
    )
    async with engine.begin() as connection:
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        await connection.run_sync(_upgrade)


async def _postgres_version(url: str) -> str | None:
    connection = await postgres.connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        return await connection.fetchval("SELECT version_num FROM alembic_version")
    finally:
        await connection.close()


def _upgrade(connection: Connection) -> None:
    # Alembic costs 0.2 s to import and is needed once for each version only.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
