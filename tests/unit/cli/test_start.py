"""The command line starts light, and its parts keep their promises."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inferd.catalog.progress import FetchProgress
from inferd.cli.data_dir import (
    ServerFile,
    is_locked,
    locked,
    prepare,
    running_server,
    write_server_file,
)
from inferd.cli.progress import ProgressLines
from inferd.errors import Unavailable
from inferd.settings import load

HEAVY = ("xllamacpp", "numpy", "gguf", "alembic", "torch", "ray", "litellm", "openai")


def test_the_gateway_imports_no_engine_and_no_heavy_library() -> None:
    code = (
        "import sys, inferd.cli, inferd.cli.wiring, inferd.api.app, inferd.api.server;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_data_directory_is_the_owners_alone(tmp_path: Path) -> None:
    root = prepare(load({"data_dir": str(tmp_path / "data")}))
    assert root.stat().st_mode & 0o077 == 0


def test_one_server_at_a_time(tmp_path: Path) -> None:
    settings = load({"data_dir": str(tmp_path)})
    root = prepare(settings)
    assert not is_locked(root)
    with locked(root):
        assert is_locked(root)
        with pytest.raises(Unavailable, match="Another inferd"), locked(root):
            pytest.fail("two at once")
        with pytest.raises(Unavailable, match="starting or stopping"):
            running_server(settings)
        server = ServerFile("http://127.0.0.1:1", "t", 1)
        write_server_file(root, server)
        assert running_server(settings) == server
        assert (root / "server.json").stat().st_mode & 0o077 == 0
    assert running_server(settings) is None


def test_a_start_outlasts_a_command_that_only_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not is_locked(tmp_path), "two that look must not take each other for a server"
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        fcntl.flock(looking, fcntl.LOCK_UN)

    monkeypatch.setattr("inferd.cli.data_dir.time.sleep", pause)
    with locked(tmp_path):
        assert is_locked(tmp_path)
    assert len(pauses) == 1
    os.close(looking)


def test_a_download_without_a_terminal_says_a_line_each_tenth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = ProgressLines()
    for done in range(0, 1001, 5):
        lines.show(FetchProgress("a/b", "downloading", done, 1000))
    lines.show(FetchProgress("a/b", "ready", 1000, 1000))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 12
    assert "50 %" in told[5]
