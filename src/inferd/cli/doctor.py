"""`inferd doctor`: what is missing or odd on this machine, a sentence each."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator

import typer

from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.errors import InferdError
from inferd.settings import Settings, load

DISK_BYTES_MIN = 2_000_000_000
MEMORY_BYTES_MIN = 2_000_000_000


def doctor(data_dir: DataDir = None, config: Config = None) -> None:
    """Exit code 1 if something keeps inferd from serving."""
    try:
        settings = load({"data_dir": data_dir}, config=config)
    except InferdError as error:
        typer.echo(error.message)
        raise typer.Exit(1) from None
    broken = list(_broken(settings))
    for sentence in (*broken, *_odd(settings)):
        typer.echo(sentence)
    if broken:
        raise typer.Exit(1)
    typer.echo("inferd can serve.")


def _broken(settings: Settings) -> Iterator[str]:
    try:
        root = data_dir.prepare(settings)
    except InferdError as error:
        yield error.message
        return
    key = root / "secret.key"
    if key.exists() and key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield f"{key.name} can be read by others: run chmod 600 on it."
    yield from _broken_engine()
    yield from _broken_ledger(settings)


def _broken_engine() -> Iterator[str]:
    # In a child: a library that crashes on this processor must not take the doctor with it.
    command = [sys.executable, "-P", "-c", "import xllamacpp"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield "The engine xllamacpp cannot be imported: it needs x86-64 with AVX2, or arm64."


def _broken_ledger(settings: Settings) -> Iterator[str]:
    from inferd.cli import wiring
    from inferd.storage.database import migrate

    try:
        wiring.catalog(settings)
        if settings.database_path.exists():
            migrate(settings.database_path)
    except InferdError as error:
        yield error.message


def _odd(settings: Settings) -> Iterator[str]:
    from inferd.cli import wiring
    from inferd.serving.memory import budget_bytes

    root = settings.data_path
    if shutil.disk_usage(root).free < DISK_BYTES_MIN:
        yield f"Less than {DISK_BYTES_MIN / 1e9:.0f} GB are free in {root}; models may not fit."
    if (settings.memory_bytes or budget_bytes()) < MEMORY_BYTES_MIN:
        yield "Less than 2 GB of memory are set aside for models; only the smallest will load."
    if (root / "ledger.journal").exists():
        yield "ledger.journal is waiting: usage was recorded while the database was away."
    if (root / "ledger.refused").exists():
        yield "ledger.refused exists: the database did not take some entries; look at them."
    files = wiring.store(settings)
    for card in wiring.catalog(settings).cards():
        if card.model_server is None and not files.installed(card):
            yield f"{card.name} is not fetched yet; its first call fetches it."
    yield "A server is running." if data_dir.is_locked(root) else "No server is running."
