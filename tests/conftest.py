"""Servers that tests share: started once, at first use; each test has a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.storage.migrate import migrate
from tests.servers import PostgresServer, ValkeyServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests of whole gateways, which run on SQLite, on PostgreSQL for once."""
    parser.addoption("--postgres", action="store_true", help="Gateways on PostgreSQL.")


@pytest.fixture(scope="session", autouse=True)
def _gateways_on_postgres(request: pytest.FixtureRequest) -> None:  # pyright: ignore[reportUnusedFunction]
    if request.config.getoption("--postgres"):
        from tests.gateway import POSTGRES

        POSTGRES.append(request.getfixturevalue("postgres"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server. Whoever stops it starts it again."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey or Redis server; its keys are shared, so use names of your own."""
    server = ValkeyServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def postgres_url(postgres: PostgresServer) -> str:
    """An empty database on PostgreSQL."""
    return await postgres.fresh()


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database on each of both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'inferd.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return await server.fresh()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database at the newest schema on each of both."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'inferd.db'}"
        migrate(url)
        return url
    server: PostgresServer = request.getfixturevalue("postgres")
    return await server.migrated()
