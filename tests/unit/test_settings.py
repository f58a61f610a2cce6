"""Settings: every wrong value is named, nothing half-configured starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd.errors import BadRequest
from inferd.settings import Settings, example_toml, load


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("INFERD_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_flags_win_over_the_environment_over_the_file_over_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "inferd.toml").write_text("port = 1\nthreads = 2\nqueue_size_max = 3\n")
    monkeypatch.setenv("INFERD_PORT", "11")
    monkeypatch.setenv("INFERD_THREADS", "12")
    settings = load({"port": 111, "host": None})
    assert (settings.port, settings.threads, settings.queue_size_max) == (111, 12, 3)
    assert settings.host == "127.0.0.1"


def test_all_wrong_values_are_listed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERD_PORT", "70000")
    monkeypatch.setenv("INFERD_THREADS", "many")
    monkeypatch.setenv("INFERD_PROT", "1")
    with pytest.raises(BadRequest) as caught:
        load({"log_format": "xml"})
    for part in ("INFERD_PORT", "INFERD_THREADS", "INFERD_PROT is not a setting", "--log-format"):
        assert part in caught.value.message
    assert "Did you mean INFERD_PORT?" in caught.value.message


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "inferd.toml").write_text("prot = 1\n")
    with pytest.raises(
        BadRequest, match=r"prot in inferd.toml is not a setting\. Did you mean port"
    ):
        load()


@pytest.mark.parametrize("text", ["port = ", "port = [", "\x00"])
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(BadRequest, match="cannot be read"):
        load(config="own.toml")


def test_without_a_file_here_the_one_in_the_data_directory_counts(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "inferd.toml").write_text("threads = 2\n")
    assert load({"data_dir": "data"}).threads == 2
    (tmp_path / "inferd.toml").write_text("threads = 3\n")
    assert load({"data_dir": "data"}).threads == 3


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_numbers_are_finite(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setenv("INFERD_IDLE_SECONDS", number)
    with pytest.raises(BadRequest, match="INFERD_IDLE_SECONDS: Expected"):
        load()


def test_a_named_file_must_exist() -> None:
    with pytest.raises(BadRequest, match="does not exist"):
        load(config="nowhere.toml")


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "192.168.1.5",
        "example.org",
        "",
        "127.example.org",
        "localhost.example.org",
        "::1:2",
    ],
)
def test_a_public_address_needs_a_secret(host: str) -> None:
    with pytest.raises(BadRequest, match="public address"):
        load({"host": host})
    with pytest.raises(BadRequest, match="32 characters"):
        load({"host": host, "bootstrap_token": "short"})
    assert load({"host": host, "bootstrap_token": "x" * 32}).is_public


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_loopback_needs_none(host: str) -> None:
    assert not load({"host": host}).is_public


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "mysql://x"),
        ("database_url", "postgresql://"),
        ("database_url", "sqlite:///"),
        ("valkey_url", "http://x"),
    ],
)
def test_an_address_that_is_none_refuses_the_start(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match="expected"):
        load({name: value})


def test_the_data_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert load().data_path == Path("/somewhere/inferd")
    assert load({"data_dir": "here"}).data_path == Path("here")


def test_a_worker_inherits_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERD_BOOTSTRAP_TOKEN", "x" * 40)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    inherited = load().worker_environment()
    assert "PATH" in inherited
    assert not {"INFERD_BOOTSTRAP_TOKEN", "HF_TOKEN"} & inherited.keys()


def test_the_example_names_every_setting_and_is_valid(tmp_path: Path) -> None:
    text = example_toml()
    for name in Settings.__struct_fields__:
        assert f"#{name} = " in text
    active = "\n".join(
        line.removeprefix("#")
        for line in text.splitlines()
        if line.startswith("#") and " = " in line and not line.startswith("# ")
    )
    (tmp_path / "all.toml").write_text(active)
    assert load(config="all.toml") == Settings(public_catalogue=True)
