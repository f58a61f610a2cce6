"""What the ledger tells of the last minute, on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from inferd.storage import accounts, entries, tables
from inferd.storage.database import Database
from inferd.storage.entries import GROUP_NS, Admitted
from inferd.storage.rows import AccountRow
from tests.unit.storage.test_ledger_writer import entry

NOW = 1_800_000_000_000_000_000
PRICE: dict[str, Any] = {
    "id": 1, "model": "m", "input_rate": 0, "cached_rate": 0, "output_rate": 0, "tiers": "{}",
    "valid_from_unix_ns": 0,
}  # fmt: skip


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> Any:
    opened = Database(database_url, directory=tmp_path)
    async with opened.writing() as connection:
        for name in "ab":
            await accounts.add(connection, AccountRow(name, name, 1, None))
        given = {c.name: PRICE[c.name] for c in tables.prices.columns if c.name in PRICE}
        await connection.execute(sa.insert(tables.prices).values(given))
    yield opened
    await opened.close()


async def settled(database: Database, number: int, account: str, created: int, took: int) -> None:
    row = entry(
        number, account_id=account, token_id="t", model="m", input_tokens=2, output_tokens=3
    )
    row = msgspec.structs.replace(row, created_unix_ns=created, settled_unix_ns=created + took)
    async with database.writing() as connection:
        await connection.execute(sa.insert(tables.entries).values(msgspec.structs.asdict(row)))


async def test_what_was_admitted_within_a_time_is_told_in_its_order(database: Database) -> None:
    await settled(database, 1, "b", NOW, 5)
    await settled(database, 2, "a", NOW - GROUP_NS, GROUP_NS * 9)
    await settled(database, 3, "a", NOW - GROUP_NS + 7, 0)
    # Admitted earlier, settled within it.
    await settled(database, 4, "a", NOW - 11 * GROUP_NS, GROUP_NS * 10)
    async with database.reading() as connection:
        told = await entries.admitted_since(connection, NOW - 10 * GROUP_NS)
    assert told == [
        Admitted("a", "t", "m", 2, 10, NOW - GROUP_NS + 7),
        Admitted("b", "t", "m", 1, 5, NOW),
    ]


async def test_it_reads_the_end_of_an_index_and_no_whole_table(database: Database) -> None:
    if database.dialect != "sqlite":
        pytest.skip("PostgreSQL plans by what lies there")
    seen: list[str] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def _explain(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        if "entries" in statement:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", rest[0])
            seen.extend(row[3] for row in cursor.fetchall())

    async with database.reading() as connection:
        await entries.admitted_since(connection, NOW)
    assert any("entries_by_account (account_id=? AND settled_unix_ns>?)" in line for line in seen)
    assert not any("SCAN entries" in line for line in seen)
