"""The doctor names each thing that is wrong, all of them at once, and never falls over."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from inferd.api.server import listen
from inferd.cli import data_dir
from inferd.cli.doctor import examine
from inferd.settings import Settings, load


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"data_dir": str(tmp_path / "data"), "port": 0})


def test_a_healthy_machine_has_nothing_broken(settings: Settings) -> None:
    broken, odd = examine(settings)
    assert broken == []
    assert "No server is running." in odd
    assert any("is not fetched yet" in sentence for sentence in odd)


def test_everything_broken_is_named_together(settings: Settings) -> None:
    root = data_dir.prepare(settings)
    key = root / "secret.key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o644)
    (root / "cards" / "bad.toml").write_text("not a card")
    (root / "inferd.db").write_bytes(b"no database" * 500)
    broken, _ = examine(settings)
    named = ("secret.key", "bad.toml", "inferd.db")
    assert all(any(name in sentence for sentence in broken) for name in named)
    assert len(broken) == 3


def test_a_port_that_somebody_has_is_named(settings: Settings, tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        broken, _ = examine(load({"data_dir": str(tmp_path), "port": port}))
        assert broken == [f"Cannot listen on 127.0.0.1 port {port}: Address already in use."]
        # While a server runs, the port is its own.
        with data_dir.locked(tmp_path):
            broken, odd = examine(load({"data_dir": str(tmp_path), "port": port}))
    assert broken == []
    assert "A server is running." in odd


def test_a_data_directory_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    broken, odd = examine(load({"data_dir": str(tmp_path / "file" / "data")}))
    assert len(broken) == 1
    assert "Cannot use the data directory" in broken[0]
    assert odd == []


def test_an_engine_that_cannot_be_imported_is_named_with_the_reason(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'ImportError: libgomp.so.1: cannot open' >&2\nexit 1\n")
    fake.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(fake))
    broken, _ = examine(settings)
    assert broken == [
        "The engine xllamacpp cannot be imported: ImportError: libgomp.so.1: cannot open."
    ]


def test_the_exit_code_says_whether_inferd_can_serve(settings: Settings) -> None:
    command = [sys.executable, "-m", "inferd.cli", "doctor", "--data-dir", settings.data_dir]
    environment = {"PATH": "/usr/bin", "INFERD_PORT": "0"}
    well = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (well.returncode, "inferd can serve." in well.stdout) == (0, True)
    ill = {**environment, "INFERD_PROT": "0"}
    told = subprocess.run(command, capture_output=True, text=True, check=False, env=ill)
    assert (told.returncode, "INFERD_PROT is not a setting" in told.stdout) == (1, True)
    assert told.stderr == ""


def test_a_registry_of_npm_that_does_not_answer_is_named_with_the_models_that_need_it(
    tmp_path: Path,
) -> None:
    """Kokoro's voices come from there; whatever else is missing is told as well."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    away = {"data_dir": str(tmp_path), "port": 0, "npm_registry_url": address}
    broken, odd = examine(load(away))
    assert broken == []
    (told,) = [sentence for sentence in odd if "npm" in sentence]
    assert told.startswith("npm's registry cannot be reached: ")
    assert "Files of hexgrad/Kokoro-82M" in told
    assert told.endswith(" come from there.")
