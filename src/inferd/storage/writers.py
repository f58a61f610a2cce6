"""The ledger's writers behind one protocol, and which one goes with a database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from inferd.storage.database_url import is_postgres, sqlite_path
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.postgres_writer import PostgresWriter
from inferd.storage.rows import LedgerWrite


class Writer(Protocol):
    """Commits the ledger's writes in groups. `start` once, in a running loop."""

    healthy: bool
    """False while neither the database nor the journal takes a write."""

    @property
    def behind(self) -> bool:
        """True while writes lie in the journal that the database does not have."""
        ...

    def start(self) -> None:
        """Take writes. Raises Unavailable."""
        ...

    async def recovered(self) -> None:
        """Wait until the journal of an earlier life is replayed. Raises Unavailable."""
        ...

    def submit(self, write: LedgerWrite) -> asyncio.Future[bool]:
        """Queue a write; the future resolves when it is committed, or raises Unavailable.

        False: a settlement of a request that was settled before. Nothing was written then.
        """
        ...

    async def close(self) -> None:
        """Commit what is queued, then end."""
        ...


def ledger_writer(url: str, directory: Path, *, power_safe: bool = False) -> Writer:
    """The writer of a database; `directory` is this gateway's, for its journal.

    PostgreSQL is as safe against power loss as it is configured.
    """
    if is_postgres(url):
        return PostgresWriter(url, directory)
    return LedgerWriter(sqlite_path(url), power_safe=power_safe)
