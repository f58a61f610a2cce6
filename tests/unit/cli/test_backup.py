"""A backup holds everything, also of a server that runs, and only a sound one is restored."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inferd.cli import app, data_dir
from inferd.errors import InferdError
from inferd.storage.database import HEAD, migrate
from tests.gateway import echo_card
from tests.process import TOKEN, InferdProcess, serving

BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 2}


def run(*arguments: str) -> str:
    """The output of a command that succeeds. Raises InferdError as it does."""
    told = CliRunner().invoke(app, arguments)
    if isinstance(told.exception, InferdError):
        raise told.exception
    assert told.exit_code == 0, told.output
    return told.output


async def ask(server: InferdProcess, count: int) -> None:
    async with server.client() as client:
        for _ in range(count):
            answer = await client.post("/v1/chat/completions", json=BODY)
            assert answer.status_code == 200


async def test_what_a_running_server_has_is_there_after_a_restore(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    file = tmp_path / "kept.tar"
    async with serving(first, echo_card()) as server:
        async with server.client() as client:
            made = (await client.post("/v1/api-tokens", json={"name": "kept"})).json()["token"]
        await ask(server, 5)
        # While it writes: the copy is of one moment.
        _, (code, output) = await asyncio.gather(ask(server, 20), server.cli("backup", str(file)))
        assert code == 0, output
    assert file.stat().st_mode & 0o077 == 0
    assert "Restored" in run("restore", str(file), "--data-dir", str(second))
    again = InferdProcess(second)
    await again.start()
    try:
        assert len(again.entries()) >= 5
        async with again.client() as client:
            for token in (TOKEN, made):
                headers = {"authorization": f"Bearer {token}"}
                assert (await client.get("/v1/me", headers=headers)).status_code == 200
            verified = await client.post("/v1/usage/verify", json={})
            assert verified.json()["differences"] == []
            models = (await client.get("/v1/models")).json()["data"]
            assert "test/echo" in [model["id"] for model in models]
        await ask(again, 1)
    finally:
        await again.stop()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An installation that does not run."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    migrate(folder / "inferd.db")
    (folder / "secret.key").write_bytes(b"k" * 32)
    (folder / "secret.key").chmod(0o600)
    (folder / "blobs").mkdir()
    (folder / "blobs" / ("a" * 32)).write_bytes(b"film")
    (folder / "ledger.journal").write_bytes(b"")
    return folder


def saved(home: Path, tmp_path: Path, *flags: str) -> Path:
    file = tmp_path / "kept.tar"
    run("backup", str(file), "--data-dir", str(home), *flags)
    return file


class TestABackup:
    def test_says_what_it_holds(self, home: Path, tmp_path: Path) -> None:
        with tarfile.open(saved(home, tmp_path)) as archive:
            content = archive.extractfile("manifest.json")
            assert content is not None
            manifest = json.load(content)
        assert manifest["schema"] == HEAD
        assert set(manifest["files"]) == {"inferd.db", "secret.key", "ledger.journal"}

    def test_holds_films_if_asked(self, home: Path, tmp_path: Path) -> None:
        with tarfile.open(saved(home, tmp_path, "--blobs")) as archive:
            assert f"blobs/{'a' * 32}" in archive.getnames()

    def test_holds_the_journals_of_all_gateways(self, home: Path, tmp_path: Path) -> None:
        (home / "gateways" / "1").mkdir(parents=True)
        (home / "gateways" / "1" / "ledger.journal").write_bytes(b"")
        file = saved(home, tmp_path)
        run("restore", str(file), "--data-dir", str(tmp_path / "other"))
        assert (tmp_path / "other" / "gateways" / "1" / "ledger.journal").exists()

    def test_replaces_no_file(self, home: Path, tmp_path: Path) -> None:
        file = saved(home, tmp_path)
        with pytest.raises(InferdError, match="exists already"):
            run("backup", str(file), "--data-dir", str(home))

    def test_of_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InferdError, match="nothing to save"):
            run("backup", str(tmp_path / "x.tar"), "--data-dir", str(tmp_path / "none"))
        assert not (tmp_path / "x.tar").exists()

    def test_leaves_nothing_half_written(self, home: Path, tmp_path: Path) -> None:
        (home / "inferd.db").write_bytes(b"not a database at all" * 100)
        with pytest.raises(InferdError):
            saved(home, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


class TestARestore:
    def test_refuses_an_installation_unless_told(self, home: Path, tmp_path: Path) -> None:
        file = saved(home, tmp_path)
        with pytest.raises(InferdError, match="say --force"):
            run("restore", str(file), "--data-dir", str(home))
        output = run("restore", str(file), "--force", "--data-dir", str(home))
        kept = [path.name for path in home.iterdir() if ".before-" in path.name]
        assert sorted(name.partition(".before-")[0] for name in kept) == [
            "inferd.db",
            "ledger.journal",
            "secret.key",
        ]
        assert output.count("Kept what was there") == 3

    def test_refuses_while_a_server_runs(self, home: Path, tmp_path: Path) -> None:
        file = saved(home, tmp_path)
        with data_dir.locked(home), pytest.raises(InferdError, match="Another inferd"):
            run("restore", str(file), "--force", "--data-dir", str(home))

    def test_signs_everybody_out(self, home: Path, tmp_path: Path) -> None:
        connection = sqlite3.connect(home / "inferd.db")
        values = ("ses_1", b"d", "per_1", "acc_1", "password", "", 1, 1, 1 << 62)
        connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        connection.commit()
        connection.close()
        other = tmp_path / "other"
        run("restore", str(saved(home, tmp_path)), "--data-dir", str(other))
        connection = sqlite3.connect(other / "inferd.db")
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
        connection.close()

    @pytest.mark.parametrize("cut", [0, 100, 5000, -1500])
    def test_refuses_a_file_that_was_cut(self, home: Path, tmp_path: Path, cut: int) -> None:
        content = saved(home, tmp_path).read_bytes()
        broken = tmp_path / "broken.tar"
        broken.write_bytes(content[:cut] if cut >= 0 else content[: len(content) // 2])
        refused(broken, tmp_path)

    @pytest.mark.parametrize("name", ["inferd.db", "secret.key"])
    def test_refuses_a_file_that_was_changed(self, home: Path, tmp_path: Path, name: str) -> None:
        file = saved(home, tmp_path)
        changed = bytearray(file.read_bytes())
        with tarfile.open(file) as archive:
            start = archive.getmember(name).offset_data
        changed[start + 20] ^= 1
        broken = tmp_path / "broken.tar"
        broken.write_bytes(changed)
        refused(broken, tmp_path, "checksum differs")

    @pytest.mark.parametrize(
        "name",
        ["../evil", "/etc/evil", "a/../../evil", "a/b/c/d", "", ".", "..", "a\x00", ".hidden"],
    )
    def test_refuses_names_that_lead_elsewhere(self, tmp_path: Path, name: str) -> None:
        manifest = {
            "inferd": "9",
            "schema": None,
            "created_unix": 1,
            "files": {name: {"bytes": 1, "sha256": "0" * 64}},
        }
        file = tmp_path / "evil.tar"
        with tarfile.open(file, "w") as archive:
            add(archive, "manifest.json", json.dumps(manifest).encode())
            add(archive, name or "x", b"x")
        refused(file, tmp_path)
        assert not list(tmp_path.rglob("evil"))

    def test_refuses_a_link_in_place_of_a_file(self, home: Path, tmp_path: Path) -> None:
        file, evil = saved(home, tmp_path), tmp_path / "evil.tar"
        with tarfile.open(file) as sound, tarfile.open(evil, "w") as archive:
            for member in sound:
                if member.name == "secret.key":
                    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                    archive.addfile(member)
                else:
                    archive.addfile(member, sound.extractfile(member))
        refused(evil, tmp_path)

    def test_refuses_a_newer_schema(self, home: Path, tmp_path: Path) -> None:
        connection = sqlite3.connect(home / "inferd.db")
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.close()
        refused(saved(home, tmp_path), tmp_path, "Upgrade inferd")

    def test_of_anything_else_is_refused(self, tmp_path: Path) -> None:
        for content in (b"", b"not a tar", b"\x00" * 10_240):
            file = tmp_path / "x.tar"
            file.write_bytes(content)
            refused(file, tmp_path)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def refused(file: Path, tmp_path: Path, match: str = ".") -> None:
    """The restore says no and leaves nothing behind."""
    target = tmp_path / "target"
    with pytest.raises(InferdError, match=match):
        run("restore", str(file), "--data-dir", str(target))
    left = {path.name for path in target.iterdir()} - {"logs", "store", "cards", "lock"}
    assert left == set()
