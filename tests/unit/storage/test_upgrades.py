"""A filled database of every earlier version becomes one of today, with everything in it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

import inferd.storage
from inferd.access.token_secrets import TokenSecrets
from inferd.access.tokens import Tokens
from inferd.clock import SystemClock
from inferd.errors import Unavailable
from inferd.metering.verify import verify
from inferd.storage import checks
from inferd.storage.backup import snapshot
from inferd.storage.database import HEAD, Database, migrate
from inferd.storage.ledger_statements import keys_of, month_of
from tests.gateway import ADMIN_TOKEN, gateway

MIGRATIONS = Path(inferd.storage.__file__).parent / "migrations"
KEY = b"k" * 32
SECRET = "secret-of-a-token-that-was-made-long-ago-0123"


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


REVISIONS = sorted(
    script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()
)
"""All of them, the oldest first."""


def digest() -> bytes:
    return TokenSecrets(KEY).digest(SECRET)


def entry(number: int) -> dict[str, Any]:
    """One of the ledger."""
    settled = 1_790_000_000_000_000_000 + number * 40_000_000_000_000
    return {
        "request_id": f"R{number:023d}",
        "account_id": "acc_1",
        "token_id": "tok_1",
        "model": "a/b",
        "task": "text-generation",
        "dialect": "openai",
        "streamed": number % 2,
        "status": ("succeeded", "cancelled", "failed")[number % 3],
        "stage": "done",
        "error_code": None,
        "end_user": ("alice", None)[number % 2],
        "input_tokens": 10,
        "cached_tokens": 2,
        "output_tokens": 5,
        "estimated": 0,
        "price_id": 1,
        "cost_nanos": 15,
        "created_unix_ns": settled,
        "settled_unix_ns": settled,
        "queue_ms": 0,
        "first_event_ms": 4,
        "runtime_ms": 9,
    }


def token(number: int, digest: bytes, scopes: str, revoked: int | None) -> dict[str, Any]:
    return {
        "id": f"tok_{number}",
        "account_id": "acc_1",
        "name": "old",
        "digest": digest,
        "fragment": SECRET[-5:],
        "scopes": scopes,
        "created_unix_ns": 3,
        "revoked_unix_ns": revoked,
    }


PRICE = {
    "id": 1,
    "model": "a/b",
    "input_rate": 1_000_000,
    "cached_rate": 1_000_000,
    "output_rate": 1_000_000,
    "valid_from_unix_ns": 5,
    "valid_to_unix_ns": None,
}
JOB = {
    "id": "video_1",
    "account_id": "acc_1",
    "token_id": "tok_1",
    "request_id": "R" + "j" * 23,
    "model": "a/b",
    "request": b"\x80",
    "status": "succeeded",
    "result": "a" * 32,
    "error": None,
    "created_unix_ns": 11,
    "ended_unix_ns": 12,
}


def rows() -> dict[str, list[dict[str, Any]]]:
    """What an installation has; a version that lacks a column lacks its value."""
    return {
        "accounts": [
            {"id": "acc_1", "name": "admin", "created_unix_ns": 1, "credit_nanos": None},
            {"id": "acc_2", "name": "prepaid", "created_unix_ns": 2, "credit_nanos": 5_000},
        ],
        "tokens": [
            token(1, digest(), "inference:run admin", None),
            token(2, b"d" * 32, "inference:run", 4),
        ],
        "prices": [PRICE],
        "entries": [entry(number) for number in range(50)],
        "reservations": [
            {"request_id": "R" + "r" * 23, "account_id": "acc_2", "nanos": 7, "created_unix_ns": 9}
        ],
        "jobs": [JOB],
    }


def make(path: Path, revision: str) -> None:
    """A filled database of a version."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection, revision)
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, content in rows().items():
            known = columns(connection, table)
            for row in content if known else ():
                fit = {name: value for name, value in row.items() if name in known}
                marks = ", ".join("?" * len(fit))
                statement = f"INSERT INTO {table} ({', '.join(fit)}) VALUES ({marks})"
                connection.execute(statement, list(fit.values()))
        book(connection)


def book(connection: sqlite3.Connection) -> None:
    """The sums that a version keeps beside its entries."""
    if columns(connection, "purses"):
        connection.execute(
            "INSERT INTO grants (id, account_id, nanos, note, granted_by, created_unix_ns) "
            "SELECT id, id, credit_nanos, '', '', 1 FROM accounts WHERE credit_nanos IS NOT NULL"
        )
        spent: Counter[str] = Counter()
        for row in rows()["entries"]:
            payer = (row["account_id"], row["token_id"], None)
            for key in keys_of(*payer, month_of(row["created_unix_ns"])):
                spent[key] += row["cost_nanos"]
        connection.executemany("INSERT INTO purses VALUES (?, ?)", spent.items())
    if columns(connection, "rollups"):
        for statement in checks.rebuilding():
            connection.execute(statement)


def upgrade(connection: Connection, revision: str) -> None:
    made = config()
    made.attributes["connection"] = connection
    command.upgrade(made, revision)


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def content_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        names = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not row[0].startswith("sqlite_")
        ]
        return {
            name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")]
            for name in names
        }


def test_the_newest_is_known() -> None:
    assert REVISIONS[-1] == HEAD
    numbers = range(1, len(REVISIONS) + 1)
    assert [f"{number:04d}" for number in numbers] == REVISIONS


@pytest.mark.parametrize("revision", REVISIONS)
async def test_every_row_survives(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "inferd.db"
    make(path, revision)
    before = content_of(path)
    migrate(path)
    after = content_of(path)
    assert after["alembic_version"] == [{"version_num": HEAD}]
    for table, old_rows in before.items():
        if table == "alembic_version":
            continue
        kept = [
            {name: value for name, value in row.items() if name in after[table][0]}
            for row in old_rows
        ]
        for row in kept:
            assert any(row.items() <= new.items() for new in after[table]), (table, row)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize("revision", REVISIONS)
async def test_what_was_there_works(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "inferd.db"
    make(path, revision)
    migrate(path)
    database = Database(path)
    tokens = Tokens(database, KEY, SystemClock())
    assert (await tokens.authenticate(SECRET)).account_id == "acc_1"
    found = await verify(database)
    assert found.entries == 50
    await database.close()


@pytest.mark.parametrize("revision", REVISIONS)
async def test_an_old_installation_serves_and_its_sums_are_right(
    tmp_path: Path, revision: str
) -> None:
    make(tmp_path / "inferd.db", revision)
    async with gateway(tmp_path) as gate:
        body = {"model": "test/echo", "messages": [{"role": "user", "content": "hi"}]}
        assert (await gate.client.post("/v1/chat/completions", body)).status == 200
        verified = (await gate.client.post("/v1/usage/verify", {})).json()
        assert verified["differences"] == []
        assert verified["entries"] == 51
        assert gate.client.token == ADMIN_TOKEN


def test_the_old_file_is_untouched_when_a_migration_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "inferd.db"
    make(path, REVISIONS[0])
    snapshot(path, tmp_path / "before.db")

    def fail(*_: object) -> None:
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as broken:
        broken.setattr("alembic.operations.Operations.create_table", fail)
        with pytest.raises(RuntimeError, match="power"):
            migrate(path)
    assert content_of(path) == content_of(tmp_path / "before.db")
    migrate(path)
    assert content_of(path)["alembic_version"] == [{"version_num": HEAD}]


def test_a_newer_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "inferd.db"
    make(path, HEAD)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = content_of(path)
    with pytest.raises(Unavailable, match="newer inferd"):
        migrate(path)
    assert content_of(path) == before
