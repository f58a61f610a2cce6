"""Tokens, the installation's key, limits."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferd.access.caller import ADMIN, INFERENCE_RUN
from inferd.access.installation import installation_key
from inferd.access.tokens import Tokens
from inferd.clock import ManualClock
from inferd.errors import BadRequest, Conflict, NotFound, Unauthorized, Unavailable
from inferd.storage.database import Database, migrate

BOOTSTRAP = "a bootstrap token of thirty-two characters"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    migrate(tmp_path / "inferd.db")
    opened = Database(tmp_path / "inferd.db")
    yield opened
    await opened.close()


@pytest.fixture
def tokens(database: Database, tmp_path: Path) -> Tokens:
    return Tokens(database, installation_key(tmp_path), ManualClock())


class TestTokens:
    async def test_the_first_start_shows_an_admin_token_and_later_ones_none(
        self, tokens: Tokens
    ) -> None:
        secret = await tokens.ensure_admin(None)
        assert secret is not None
        assert (await tokens.authenticate(secret)).may("anything")
        assert await tokens.ensure_admin(None) is None

    async def test_a_warm_token_needs_no_database(self, tokens: Tokens, database: Database) -> None:
        secret = await tokens.ensure_admin(None)
        assert secret is not None
        assert tokens.known(secret) is None
        caller = await tokens.authenticate(secret)
        await database.close()
        assert tokens.known(secret) == caller
        assert await tokens.authenticate(secret) == caller

    async def test_no_secret_and_no_plain_digest_lies_in_the_database(
        self, tokens: Tokens, tmp_path: Path
    ) -> None:
        secret = await tokens.ensure_admin(None)
        assert secret is not None
        for file in tmp_path.glob("inferd.db*"):
            assert secret.encode() not in file.read_bytes()

    async def test_revoking_is_effective_when_it_returns(self, tokens: Tokens) -> None:
        admin = await tokens.authenticate((await tokens.ensure_admin(None)) or "")
        row, secret = await tokens.create(admin.account_id, "ci", (INFERENCE_RUN,))
        assert not (await tokens.authenticate(secret)).may(ADMIN)
        await tokens.revoke(admin.account_id, row.id)
        assert tokens.known(secret) is None
        with pytest.raises(Unauthorized):
            await tokens.authenticate(secret)
        with pytest.raises(NotFound):
            await tokens.revoke(admin.account_id, row.id)

    async def test_another_accounts_token_cannot_be_revoked(self, tokens: Tokens) -> None:
        admin = await tokens.authenticate((await tokens.ensure_admin(None)) or "")
        row, _ = await tokens.create(admin.account_id, "ci", (INFERENCE_RUN,))
        with pytest.raises(NotFound):
            await tokens.revoke("acc_other", row.id)

    async def test_live_names_are_unique_and_free_again_after_revoking(
        self, tokens: Tokens
    ) -> None:
        admin = await tokens.authenticate((await tokens.ensure_admin(None)) or "")
        row, _ = await tokens.create(admin.account_id, "ci", ())
        with pytest.raises(Conflict):
            await tokens.create(admin.account_id, "ci", ())
        await tokens.revoke(admin.account_id, row.id)
        await tokens.create(admin.account_id, "ci", ())

    async def test_the_bootstrap_token_replaces_the_one_before(self, tokens: Tokens) -> None:
        assert await tokens.ensure_admin(BOOTSTRAP) is None
        await tokens.ensure_admin(BOOTSTRAP)
        assert (await tokens.authenticate(BOOTSTRAP)).may(ADMIN)
        await tokens.ensure_admin(BOOTSTRAP + "2")
        with pytest.raises(Unauthorized):
            await tokens.authenticate(BOOTSTRAP)
        with pytest.raises(BadRequest):
            await tokens.ensure_admin("short")

    async def test_tokens_that_share_a_beginning_are_different_callers(
        self, tokens: Tokens
    ) -> None:
        secret = await tokens.ensure_admin(None)
        assert secret is not None
        await tokens.authenticate(secret)
        with pytest.raises(Unauthorized):
            await tokens.authenticate(secret + "x")
        with pytest.raises(Unauthorized):
            await tokens.authenticate(secret[:-1])

    @pytest.mark.parametrize("secret", ["' OR 1=1 --", "\udcff", "é" * 600, "", "x" * 10**6])
    async def test_hostile_secrets_are_just_wrong(self, tokens: Tokens, secret: str) -> None:
        await tokens.ensure_admin(None)
        with pytest.raises(Unauthorized):
            await tokens.authenticate(secret)

    async def test_the_local_secret_dies_with_the_process(
        self, tokens: Tokens, database: Database, tmp_path: Path
    ) -> None:
        secret = await tokens.local_admin()
        assert tokens.known(secret) is not None
        reborn = Tokens(database, installation_key(tmp_path), ManualClock())
        with pytest.raises(Unauthorized):
            await reborn.authenticate(secret)


class TestInstallationKey:
    def test_it_is_made_once_and_private(self, tmp_path: Path) -> None:
        key = installation_key(tmp_path)
        assert len(key) == 32
        assert installation_key(tmp_path) == key
        assert (tmp_path / "secret.key").stat().st_mode & 0o077 == 0
        assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]

    def test_one_that_others_can_read_or_of_a_wrong_size_is_refused(self, tmp_path: Path) -> None:
        installation_key(tmp_path)
        path = tmp_path / "secret.key"
        path.chmod(0o644)
        with pytest.raises(Unavailable, match="chmod 600"):
            installation_key(tmp_path)
        path.chmod(0o600)
        path.write_bytes(b"short")
        with pytest.raises(Unavailable, match="5 bytes"):
            installation_key(tmp_path)


class TestDatabase:
    def test_the_head_in_the_code_is_the_newest_migration(self) -> None:
        from inferd.storage import database

        versions = Path(database.__file__).parent / "migrations" / "versions"
        assert max(path.name[:4] for path in versions.glob("0*.py")) == database.HEAD

    def test_the_migrations_make_the_tables_of_the_code(self, tmp_path: Path) -> None:
        from sqlalchemy import create_engine, inspect

        from inferd.storage.tables import metadata

        migrate(tmp_path / "inferd.db")
        engine = create_engine(f"sqlite:///{tmp_path / 'inferd.db'}")
        found = inspect(engine)
        for table in metadata.sorted_tables:
            columns = {c["name"]: str(c["type"]) for c in found.get_columns(table.name)}
            assert columns == {c.name: str(c.type) for c in table.columns}
            indexes = {index["name"] for index in found.get_indexes(table.name)}
            assert {str(index.name) for index in table.indexes} <= indexes
        engine.dispose()

    def test_a_database_of_a_newer_version_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "inferd.db"
        migrate(path)
        connection = sqlite3.connect(path)
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.close()
        with pytest.raises(Unavailable, match="newer inferd"):
            migrate(path)

    def test_what_is_no_database_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "inferd.db"
        path.write_bytes(b"no database at all" * 100)
        with pytest.raises(Unavailable, match="not a readable database"):
            migrate(path)
