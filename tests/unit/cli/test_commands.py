"""What people mistype gets a sentence and exit code 1, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = (
    (("models", "show", "no/model"), "no/model"),
    (("run", "no/model", "hello"), "no/model"),
    (("usage", "--month", "2026-13"), "not a month"),
    (("usage", "--month", "9999-12"), "not a month"),
    (("usage", "--by", "colour"), "by must be one of"),
    (("token", "revoke", "nope"), "No such token"),
    (("account", "limit", "nobody", "5"), "No such account"),
    (("account", "limit", "nobody", "five"), "neither dollars nor none"),
    (("serve", "--set", "prot=1"), "prot"),
    (("serve", "--set", "bootstrap_token=x"), "seen by others"),
    (("serve", "--host", "localhost.example.org"), "public address"),
    (("usage", "--config", "nowhere.toml"), "nowhere.toml does not exist"),
    (("usage", "--config", "nowhere.toml", "verify"), "nowhere.toml does not exist"),
)


@pytest.mark.parametrize(("command", "sentence"), COMMANDS)
def test_a_mistake_is_a_sentence(command: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    told = _inferd(tmp_path, *command)
    assert told.returncode == 1
    assert sentence in told.stderr
    assert told.stderr.startswith("inferd: ")
    assert "Traceback" not in told.stderr
    assert told.stdout == ""


def test_an_accounts_monthly_limit_is_set_lifted_and_shown(tmp_path: Path) -> None:
    uid = _inferd(tmp_path, "account", "create", "blue").stdout.split()[0]
    for given, shown in ((("12.5",), "$12.5"), ((), "$12.5"), (("none",), "none")):
        told = _inferd(tmp_path, "account", "limit", uid, *given)
        assert f"admin's limit: {shown}\n" in told.stdout, told.stderr


def test_a_path_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/x.db"
    told = _inferd(tmp_path, "usage", INFERD_DATABASE_URL=url)
    assert told.returncode == 1
    assert told.stderr == f"inferd: No such file or directory ({tmp_path}/nowhere/x.db).\n"


def test_who_stops_reading_gets_no_complaint(tmp_path: Path) -> None:
    script = f"{sys.executable} -m inferd.cli models show HuggingFaceTB/SmolLM2-135M-Instruct | :"
    told = subprocess.run(
        ["/bin/sh", "-c", script],
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in told.stderr


def _environment(data_dir: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "INFERD_DATA_DIR": str(data_dir), "INFERD_PORT": "0"}


def _inferd(data_dir: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inferd.cli", *command],
        env={**_environment(data_dir), **more},
        cwd=data_dir,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
