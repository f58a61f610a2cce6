"""What must be true of the ledger's tables, as queries for what is not. Read only.

Each check gives sentences. They are asked within one snapshot, so that what is booked meanwhile
does not look like a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import NullPool, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from inferd.storage import postgres
from inferd.storage.database import Database
from inferd.storage.ledger_statements import month_of
from inferd.storage.tables import entries
from inferd.storage.tables_usage import SUMS

SHOWN_MAX = 100
"""Sentences of one check."""
UPTIME_TOKEN = "tok_uptime"
"""Of entries that nobody's call made: a model was kept up."""
WITHOUT_ROW = ("tok_local", UPTIME_TOKEN)
"""Tokens that live in a process's memory alone."""
_SESSION = "ses_%"
_DAY_NS = 86_400_000_000_000
CACHE_KIB = 64 * 1024
"""Of SQLite while it sums millions of rows; 2 MB is its default."""
_PARTITION = 200
"""Entries that are looked at between two turns of the event loop."""


Connection = AsyncConnection


class Billed(NamedTuple):
    """What an entry was billed for."""

    request_id: str
    model: str
    price_id: int
    tier: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    quantity: int
    cost_nanos: int


@asynccontextmanager
async def snapshot(database: Database) -> AsyncGenerator[AsyncConnection]:
    """A connection that sees the database as it is now, until the end."""
    async with unhurried(database) as connection:
        if database.dialect == "sqlite":
            await connection.exec_driver_sql("BEGIN")
        else:
            how = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
            await connection.execute(text(how))
        try:
            yield connection
        finally:
            await connection.rollback()


@asynccontextmanager
async def unhurried(database: Database) -> AsyncGenerator[AsyncConnection]:
    """A connection whose statements may take as long as they need."""
    if database.dialect == "sqlite":
        async with database.reading() as connection:
            await connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE_KIB}")
            try:
                yield connection
            finally:
                await connection.rollback()
                await connection.exec_driver_sql("PRAGMA cache_size = -2000")
        return
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=partial(postgres.connect, database.url, statement_seconds=None),
        poolclass=NullPool,
    )
    with database.absence_told():
        try:
            async with engine.connect() as connection:
                yield connection
        finally:
            await engine.dispose()


async def billed(connection: AsyncConnection) -> AsyncIterator[Sequence[Billed]]:
    """All entries, some at a time: memory stays flat however many there are."""
    columns = (entries.c[name] for name in Billed._fields)
    async with connection.stream(
        select(*columns), execution_options={"yield_per": _PARTITION}
    ) as rows:
        async for part in rows.partitions():
            yield [Billed(*row) for row in part]


async def every(connection: AsyncConnection) -> list[str]:
    """All checks but those of single entries."""
    found = [
        one for table, key in _ROLLUPS for one in await _rollup_differences(connection, table, key)
    ]
    found += await _purse_differences(connection)
    for query, sentence in _CHECKS:
        rows = await connection.execute(text(f"{query} LIMIT {SHOWN_MAX}"))
        found += [sentence.format(*map(_whole, row)) for row in rows]
    return found


def rebuilding() -> list[str]:
    """Statements that fill empty roll-ups from the entries."""
    return [
        f"INSERT INTO {table} ({', '.join((*key, *_SUM_OF_ENTRY))}) {_summed(table, key)}"
        for table, key in _ROLLUPS
    ]


async def held(connection: AsyncConnection, gateway: str, before_unix_ns: int) -> list[str]:
    """Requests that a gateway has had money set aside for since before a moment."""
    query = text(
        "SELECT request_id FROM reservations WHERE gateway = :gateway AND created_unix_ns < :before"
    )
    values = {"gateway": gateway, "before": before_unix_ns}
    return [row[0] for row in await connection.execute(query, values)]


_ROLLUP_OF_ENTRY = {
    "account_id": "account_id",
    "day": f"settled_unix_ns / {_DAY_NS}",
    "token_id": "token_id",
    "model": "model",
    "tier": "tier",
    "unit": "COALESCE(unit, '')",
    "price_id": "price_id",
    "tag": "COALESCE(tag, '')",
}
_END_USER_OF_ENTRY = {
    "account_id": "account_id",
    "day": f"settled_unix_ns / {_DAY_NS}",
    "token_id": "token_id",
    "end_user": "end_user",
    "unit": "COALESCE(unit, '')",
}
_ROLLUPS = (
    ("rollups", _ROLLUP_OF_ENTRY),
    (
        "account_rollups",
        {name: _ROLLUP_OF_ENTRY[name] for name in ("day", "account_id", "model", "unit")},
    ),
    ("end_user_rollups", _END_USER_OF_ENTRY),
)
_SUM_OF_ENTRY = {
    "requests": "COUNT(*)",
    **{name: f"SUM({name})" for name in SUMS if name != "requests"},
}


def _summed(table: str, key: dict[str, str]) -> str:
    columns = ", ".join(f"{value} AS {name}" for name, value in (key | _SUM_OF_ENTRY).items())
    named = " WHERE end_user IS NOT NULL" if table == "end_user_rollups" else ""
    group = ", ".join(str(number) for number in range(1, len(key) + 1))
    return f"SELECT {columns} FROM entries{named} GROUP BY {group}"


async def _rollup_differences(
    connection: AsyncConnection, table: str, key: dict[str, str]
) -> list[str]:
    """Roll-ups that are not the sums of their entries, and sums that are in no roll-up."""
    same = " AND ".join(f"s.{name} = r.{name}" for name in key)
    differs = " OR ".join(f"s.{name} <> r.{name}" for name in SUMS)
    of_sums, of_rollups = (", ".join(f"{one}.{name}" for name in key) for one in "sr")
    figures = "s.cost_nanos, r.cost_nanos, s.requests, r.requests"
    # Both ways round: SQLite has no full join before 3.39.
    query = (
        f"WITH sums AS ({_summed(table, key)}) "
        f"SELECT {figures}, {of_sums} FROM sums s LEFT JOIN {table} r ON {same} "
        f"WHERE r.requests IS NULL OR {differs} "
        f"UNION ALL SELECT {figures}, {of_rollups} FROM {table} r LEFT JOIN sums s ON {same} "
        f"WHERE s.requests IS NULL LIMIT {SHOWN_MAX}"
    )
    found: list[str] = []
    for entry_nanos, nanos, requests, kept, *values in await connection.execute(text(query)):
        where = ", ".join(f"{name} {value}" for name, value in zip(key, values, strict=True))
        found.append(
            f"{table} ({where}): {kept or 0} requests of {nanos or 0} nano-dollars, "
            f"its entries are {requests or 0} of {_whole(entry_nanos or 0)}."
        )
    return found


async def _purse_differences(connection: AsyncConnection) -> list[str]:
    """Purses that are not the sums of what was paid from them."""
    wrong: list[str] = []
    paid = await _paid(connection)
    rows = await connection.stream(
        text("SELECT key, spent_nanos FROM purses WHERE key NOT LIKE 'jwt:%'")
    )
    async for key, spent in rows:
        nanos = paid.pop(key, 0)
        if nanos != spent and len(wrong) < SHOWN_MAX:
            wrong.append(_purse(key, spent, nanos))
    wrong += [_purse(key, 0, nanos) for key, nanos in paid.items() if nanos][:SHOWN_MAX]
    jwts = text(
        "WITH sums AS (SELECT 'jwt:' || jwt_id AS key, SUM(cost_nanos) AS nanos FROM entries "
        "WHERE jwt_id IS NOT NULL GROUP BY 1), "
        "kept AS (SELECT key, spent_nanos FROM purses WHERE key LIKE 'jwt:%') "
        "SELECT sums.key, COALESCE(spent_nanos, 0), nanos "
        "FROM sums LEFT JOIN kept ON kept.key = sums.key WHERE COALESCE(spent_nanos, 0) <> nanos "
        "UNION ALL SELECT kept.key, spent_nanos, 0 FROM kept LEFT JOIN sums "
        f"ON kept.key = sums.key WHERE nanos IS NULL AND spent_nanos <> 0 LIMIT {SHOWN_MAX}"
    )
    return wrong + [_purse(*row) for row in await connection.execute(jwts)]


async def _paid(connection: AsyncConnection) -> Counter[str]:
    """Purse → what was paid from it: a few for each token and month."""
    paid: Counter[str] = Counter()
    query = text(
        f"SELECT account_id, token_id, created_unix_ns / {_DAY_NS}, SUM(cost_nanos) "
        "FROM entries GROUP BY 1, 2, 3"
    )
    async for account_id, token_id, day, summed in await connection.stream(query):
        month, nanos = month_of(int(day) * _DAY_NS), int(summed)
        paid[f"credit:{account_id}"] += nanos
        paid[f"month:{account_id}:{month}"] += nanos
        paid[f"token:{token_id}:{month}"] += nanos
    return paid


def _purse(key: str, spent: Any, nanos: Any) -> str:
    said = f"The purse {key} says {spent} nano-dollars are spent"
    return f"{said}, its entries say {_whole(nanos)}."


def _whole(value: Any) -> Any:
    # PostgreSQL's sums of big integers are numeric.
    return int(value) if isinstance(value, Decimal) else value


_KNOWN = ", ".join(f"'{token_id}'" for token_id in WITHOUT_ROW)
_CHECKS: tuple[tuple[str, str], ...] = (
    (
        "SELECT DISTINCT account_id FROM rollups r WHERE NOT EXISTS "
        "(SELECT 1 FROM accounts a WHERE a.id = r.account_id)",
        "There are entries of the account {0}, which does not exist.",
    ),
    (
        f"SELECT DISTINCT token_id FROM rollups r WHERE token_id NOT IN ({_KNOWN}) "
        f"AND token_id NOT LIKE '{_SESSION}' AND NOT EXISTS "
        "(SELECT 1 FROM tokens t WHERE t.id = r.token_id)",
        "There are entries of the token {0}, which does not exist.",
    ),
    (
        "SELECT DISTINCT r.token_id, r.account_id, t.account_id FROM rollups r "
        "JOIN tokens t ON t.id = r.token_id WHERE t.account_id <> r.account_id",
        "The token {0} has entries of the account {1}, but belongs to {2}.",
    ),
    (
        "SELECT a.id, a.credit_nanos, COALESCE(SUM(g.nanos), 0) FROM accounts a "
        "LEFT JOIN grants g ON g.account_id = a.id WHERE a.credit_nanos IS NOT NULL "
        "GROUP BY a.id, a.credit_nanos HAVING a.credit_nanos <> COALESCE(SUM(g.nanos), 0)",
        "The account {0} has {1} nano-dollars of credit, its grants are {2}.",
    ),
    (
        "SELECT g.id, g.account_id FROM grants g LEFT JOIN accounts a ON a.id = g.account_id "
        "WHERE a.id IS NULL OR a.credit_nanos IS NULL",
        "The grant {0} is not in the credit of the account {1}.",
    ),
    (
        "SELECT r.request_id FROM reservations r JOIN entries e ON e.request_id = r.request_id",
        "Money is set aside for {0}, which is settled.",
    ),
    (
        "SELECT r.request_id, r.gateway FROM reservations r WHERE r.gateway <> '' "
        "AND NOT EXISTS (SELECT 1 FROM gateways g WHERE g.id = r.gateway)",
        "Money is set aside for {0} by the gateway {1}, which does not exist.",
    ),
    (
        "SELECT r.request_id, r.account_id FROM reservations r WHERE NOT EXISTS "
        "(SELECT 1 FROM accounts a WHERE a.id = r.account_id)",
        "Money is set aside for {0} of the account {1}, which does not exist.",
    ),
    (
        "SELECT l.purse, l.gateway FROM leases l WHERE NOT EXISTS "
        "(SELECT 1 FROM gateways g WHERE g.id = l.gateway)",
        "The purse {0} is leased to the gateway {1}, which does not exist.",
    ),
    (
        "SELECT a.model, a.id, b.id FROM prices a JOIN prices b ON a.model = b.model "
        "AND a.id < b.id AND a.valid_from_unix_ns < COALESCE(b.valid_to_unix_ns, 9e18) "
        "AND b.valid_from_unix_ns < COALESCE(a.valid_to_unix_ns, 9e18) "
        "AND (a.valid_to_unix_ns IS NULL OR a.valid_to_unix_ns > a.valid_from_unix_ns) "
        "AND (b.valid_to_unix_ns IS NULL OR b.valid_to_unix_ns > b.valid_from_unix_ns)",
        "The prices {1} and {2} of {0} are valid at the same time.",
    ),
)
"""Query → sentence."""
