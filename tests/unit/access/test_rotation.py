"""A new key for the installation: no token stops working, and nothing stays under the old one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from inferd.access import installation
from inferd.access.caller import INFERENCE_RUN
from inferd.access.installation import installation_keys, rotate
from inferd.access.rotation import Moved, move_tokens
from inferd.access.token_secrets import TokenSecrets
from inferd.access.tokens import Tokens
from inferd.clock import ManualClock
from inferd.errors import Unauthorized, Unavailable
from inferd.storage.database import Database, migrate


async def tokens_over(data_dir: Path, database: Database) -> Tokens:
    keys = installation_keys(data_dir)
    return Tokens(database, keys.current, ManualClock(), retired_keys=keys.retired)


async def opened(data_dir: Path) -> Database:
    migrate(data_dir / "inferd.db")
    return Database(data_dir / "inferd.db")


async def with_tokens(data_dir: Path, database: Database, count: int) -> list[str]:
    tokens = await tokens_over(data_dir, database)
    await tokens.ensure_admin("b" * 40)
    account = (await tokens.authenticate("b" * 40)).account_id
    made = [await tokens.create(account, f"t{n}", (INFERENCE_RUN,)) for n in range(count)]
    return ["b" * 40, *(secret for _, secret in made)]


async def test_tokens_move_and_stay_valid(tmp_path: Path) -> None:
    database = await opened(tmp_path)
    secrets = await with_tokens(tmp_path, database, 3)
    old = installation_keys(tmp_path).current
    keys = rotate(tmp_path)
    assert keys.current != old
    assert await move_tokens(database, TokenSecrets(*keys)) == Moved(now=4, later=0)
    installation.forget_retired(tmp_path)
    tokens = await tokens_over(tmp_path, database)
    for secret in secrets:
        assert (await tokens.authenticate(secret)).account_id
    # What the old key could tell from a stolen database, it cannot tell any more.
    thief = Tokens(database, old, ManualClock())
    for secret in secrets:
        with pytest.raises(Unauthorized):
            await thief.authenticate(secret)
    await database.close()


async def test_a_token_from_before_moves_at_its_next_use(tmp_path: Path) -> None:
    database = await opened(tmp_path)
    secrets = await with_tokens(tmp_path, database, 1)
    connection = sqlite3.connect(tmp_path / "inferd.db")
    connection.execute("UPDATE tokens SET sealed = NULL")
    connection.commit()
    connection.close()
    keys = rotate(tmp_path)
    assert await move_tokens(database, TokenSecrets(*keys)) == Moved(now=0, later=2)
    tokens = await tokens_over(tmp_path, database)
    for secret in secrets:
        await tokens.authenticate(secret)
    installation.forget_retired(tmp_path)
    again = await tokens_over(tmp_path, database)
    for secret in secrets:
        await again.authenticate(secret)
    await database.close()


@pytest.mark.parametrize("step", ["retired", "current", "moved"])
async def test_no_step_that_is_the_last_loses_a_token(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await opened(tmp_path)
    secrets = await with_tokens(tmp_path, database, 2)
    if step == "retired":
        written = installation._write  # pyright: ignore[reportPrivateUsage]

        def die(path: Path, content: bytes) -> None:
            if path.name == installation.KEY_FILE:
                raise OSError("the power is gone")
            written(path, content)

        monkeypatch.setattr(installation, "_write", die)
        with pytest.raises(OSError, match="power"):
            rotate(tmp_path)
        monkeypatch.undo()
    else:
        keys = rotate(tmp_path)
        if step == "moved":
            await move_tokens(database, TokenSecrets(*keys))
    tokens = await tokens_over(tmp_path, database)
    for secret in secrets:
        await tokens.authenticate(secret)
    # And the next rotation goes through.
    keys = rotate(tmp_path)
    assert (await move_tokens(database, TokenSecrets(*keys))).now == 3
    await database.close()


def test_retired_keys_are_private_and_whole(tmp_path: Path) -> None:
    installation_keys(tmp_path)
    rotate(tmp_path)
    rotate(tmp_path)
    assert len(installation_keys(tmp_path).retired) == 2
    path = tmp_path / installation.RETIRED_FILE
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o640)
    with pytest.raises(Unavailable, match="read by others"):
        installation_keys(tmp_path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(Unavailable, match="whole keys"):
        installation_keys(tmp_path)
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {installation.KEY_FILE, installation.RETIRED_FILE}
