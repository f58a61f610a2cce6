"""Connections to PostgreSQL: one way to open one, for SQLAlchemy and the ledger's writer.

asyncpg reads the URL as libpq does: `sslmode`, `sslrootcert`, `sslcert`, `sslkey` and the rest.
It is in the extra `cluster`, and imported only when a database is PostgreSQL.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from inferd.errors import BadRequest, Unavailable
from inferd.storage.database_url import shown

CONNECT_SECONDS_MAX = 3.0
STATEMENT_SECONDS_MAX = 10.0
"""A server that has stopped without hanging up must not hold a request for ever."""
_AWAY_CLASSES = ("08", "25", "40", "53", "57", "58", "F0", "XX")
"""SQLSTATE classes of a server that is starting, stopping, full, read-only or lost, and of a
transaction that may be tried again."""


class Connection(Protocol):
    """What we use of asyncpg's connections; asyncpg has no types."""

    async def execute(self, query: str, *args: object) -> str:
        """Run; returns the command's tag, such as `INSERT 0 1`."""
        ...

    async def executemany(self, command: str, args: Iterable[Sequence[object]]) -> None:
        """Run with each of the arguments, in one round trip."""
        ...

    async def fetchmany(self, query: str, args: Iterable[Sequence[object]]) -> list[Any]:
        """Run with each of the arguments, in one round trip; all rows that they give."""
        ...

    async def fetch(self, query: str, *args: object) -> list[Any]:
        """All rows."""
        ...

    async def fetchval(self, query: str, *args: object) -> Any:
        """The first row's first value."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Begin; commit at its end. Inside another one it is a savepoint."""
        ...

    async def close(self) -> None:
        """Say goodbye."""
        ...

    def terminate(self) -> None:
        """Hang up at once."""
        ...


def require_driver() -> None:
    """Raises BadRequest if the extra is not installed."""
    if importlib.util.find_spec("asyncpg") is None:
        raise BadRequest("PostgreSQL needs the extra `cluster`: pip install 'inferd[cluster]'.")


async def connect(
    url: str, *, statement_seconds: float | None = STATEMENT_SECONDS_MAX
) -> Connection:
    """A new connection. Raises Unavailable, or BadRequest; no secret of the URL in either."""
    require_driver()
    driver: Any = importlib.import_module("asyncpg")
    try:
        return await driver.connect(
            url,
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=statement_seconds,
            server_settings={"application_name": "inferd"},
        )
    except (OSError, TimeoutError, driver.PostgresError) as error:
        raise away(url, error) from error
    except (driver.InterfaceError, ValueError):
        # From None: what it says may hold a part of the password.
        raise BadRequest("database_url is not a URL that PostgreSQL's clients read.") from None


def is_away_code(sqlstate: str | None) -> bool:
    """True if an error of this code speaks of the server rather than of the statement."""
    return sqlstate is not None and sqlstate.startswith(_AWAY_CLASSES)


def is_conflict(error: BaseException) -> bool:
    """The transaction lost against another one and may be tried again."""
    return str(getattr(error, "sqlstate", None)).startswith("40")


def is_refusal(error: BaseException) -> bool:
    """The values break a constraint, or are none that their column takes."""
    if isinstance(error, ValueError | OverflowError):
        return True
    return str(getattr(error, "sqlstate", None)).startswith(("22", "23"))


def away(url: str, error: BaseException) -> Unavailable:
    """The database cannot be used now."""
    return Unavailable(
        "The database cannot be reached at the moment.",
        retry_after_seconds=5,
        # The first line alone: what follows are the statement and its values.
        detail=f"{shown(url)}: {type(error).__name__}: {str(error).partition(chr(10))[0]}",
    )
