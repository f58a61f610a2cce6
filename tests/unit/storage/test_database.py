"""Both databases: migrated once, the same tables, and their absence told without a secret."""

from __future__ import annotations

import asyncio
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from inferd.errors import BadRequest, InferdError, Unavailable
from inferd.storage.database import HEAD, Database, migrate
from inferd.storage.database_url import shown
from inferd.storage.migrate import check
from inferd.storage.tables import metadata
from tests.servers import ESCAPED_PASSWORD, PASSWORD, PostgresServer, free_port


def no_secret(error: InferdError) -> bool:
    """Neither form of the password is in whatever a log would get."""
    said = "".join([*traceback.format_exception(error), repr(error.detail), error.message])
    return PASSWORD not in said and ESCAPED_PASSWORD not in said


async def test_migrations_make_the_tables_of_the_code(
    empty_database_url: str, tmp_path: Path
) -> None:
    migrate(empty_database_url)
    database = Database(empty_database_url, directory=tmp_path)
    async with database.reading() as connection:
        found = await connection.run_sync(
            lambda c: {
                name: (
                    {column["name"] for column in inspect(c).get_columns(name)},
                    {str(index["name"]) for index in inspect(c).get_indexes(name)},
                )
                for name in inspect(c).get_table_names()
            }
        )
    await database.close()
    for table in metadata.sorted_tables:
        columns, indexes = found[table.name]
        assert columns == {column.name for column in table.columns}
        assert {str(index.name) for index in table.indexes} <= indexes


async def test_partial_indexes_are_partial_in_both(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url, directory=tmp_path)
    insert = text(
        "INSERT INTO prices (model, input_rate, cached_rate, output_rate, valid_from_unix_ns, "
        "valid_to_unix_ns) VALUES ('m', 1, 1, 1, 1, :until)"
    )
    async with database.writing() as connection:
        for until in (5, 6, None):
            await connection.execute(insert, {"until": until})
    await database.close()


async def test_gateways_that_start_at_once_migrate_once(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as starting:
        list(starting.map(migrate, [postgres_url] * 4))
    check(postgres_url)
    migrate(postgres_url)


async def test_a_newer_schema_is_refused(postgres: PostgresServer, postgres_url: str) -> None:
    migrate(postgres_url)
    await postgres.run("UPDATE alembic_version SET version_num = '9999'", postgres_url)
    for step in (migrate, check):
        with pytest.raises(Unavailable, match=f"9999, this one knows {HEAD}") as refused:
            step(postgres_url)
        assert no_secret(refused.value)


async def test_a_wrong_password_and_a_wrong_port_are_told_without_the_url(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    wrong = postgres.url("postgres").replace("inferd:", "inferd:not-")
    nobody = postgres.url("postgres").replace(str(postgres.port), str(free_port()))
    for url in (wrong, nobody, postgres.url("missing")):
        with pytest.raises(Unavailable) as refused:
            migrate(url)
        assert no_secret(refused.value)
        database = Database(url, directory=tmp_path)
        with pytest.raises(Unavailable) as refused:
            async with database.reading():
                pass
        assert no_secret(refused.value)
        await database.close()
    assert shown(postgres.url("x")) == f"127.0.0.1:{postgres.port}/x"


async def test_the_urls_tls_parameters_are_respected(postgres: PostgresServer) -> None:
    with pytest.raises(Unavailable, match="cannot be reached") as refused:
        migrate(postgres.url("postgres") + "?sslmode=require")
    assert "SSL" in str(refused.value.detail)
    with pytest.raises(BadRequest, match="database_url") as refused:
        migrate(postgres.url("postgres") + "?sslmode=nonsense")
    assert no_secret(refused.value)


async def test_a_stopped_server_is_unavailable_and_a_restart_costs_no_request(
    tmp_path: Path,
) -> None:
    server = PostgresServer()
    server.start()
    database = Database(server.url("postgres"), directory=tmp_path)

    async def asks() -> int:
        async with database.reading() as connection:
            return (await connection.execute(text("SELECT 1"))).scalar_one()

    try:
        for _ in range(2):
            assert await asyncio.gather(*(asks() for _ in range(4))) == [1] * 4
            server.stop()
            with pytest.raises(Unavailable):
                await asks()
            server.start()
    finally:
        await database.close()
        server.close()
