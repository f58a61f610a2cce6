"""`inferd backup` and `inferd restore`: everything but the models, in one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from inferd.access.installation import KEY_FILE, RETIRED_FILE
from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.clock import SystemClock
from inferd.errors import BadRequest, Conflict
from inferd.settings import Settings, load
from inferd.storage import backup as archive
from inferd.storage.database_url import sqlite_path

_NANOS = 1_000_000_000
_SINGLE = (archive.JOURNAL, "ledger.refused", KEY_FILE, RETIRED_FILE, "inferd.toml")
_FOLDERS = {"cards": "*.toml", "blobs": "*"}


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; it must not exist.")],
    blobs: Annotated[  # noqa: FBT002 a flag
        bool, typer.Option("--blobs", help="With pictures and films of the last day.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Save database, keys and cards; a server may run. The file opens every token: guard it."""
    settings = load({"data_dir": data_dir}, config=config)
    target = file.expanduser().absolute()
    if target.exists():
        raise Conflict(f"{file} exists already.")
    root = settings.data_path
    database = None if settings.is_clustered else sqlite_path(settings.database_location)
    if not (root / KEY_FILE).exists() or (database is not None and not database.exists()):
        raise BadRequest(f"There is no installation in {root}: nothing to save.")
    found = {name: root / name for name in _names(root, with_blobs=blobs)}
    made = archive.write(target, database, found, SystemClock().unix_ns() // _NANOS)
    typer.echo(f"{file}: {len(made.files)} files, {target.stat().st_size} bytes.")
    if database is None:
        typer.echo(
            "The database is PostgreSQL and is not in it: save it with pg_dump at the same time."
        )


def _names(root: Path, *, with_blobs: bool) -> Iterator[str]:
    yield from (name for name in _SINGLE if (root / name).is_file())
    # Of the second gateway and those after it.
    journals = sorted(root.glob(f"gateways/*/{archive.JOURNAL}"))
    yield from (str(path.relative_to(root)) for path in journals)
    for folder, pattern in _FOLDERS.items():
        if folder != "blobs" or with_blobs:
            files = sorted((root / folder).glob(pattern))
            yield from (f"{folder}/{path.name}" for path in files if path.is_file())


def restore(
    file: Annotated[Path, typer.Argument(help="What `inferd backup` wrote.")],
    force: Annotated[  # noqa: FBT002 a flag
        bool, typer.Option("--force", help="Though there is an installation; it is kept aside.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Put a backup into the data directory. Stop the server first."""
    settings = load({"data_dir": data_dir}, config=config)
    source = file.expanduser()
    if not source.is_file():
        raise BadRequest(f"{file} does not exist.")
    kept = _restored(settings, source, force=force)
    for path in kept:
        typer.echo(f"Kept what was there: {path}")
    typer.echo("Restored. People sign in again; tokens that were revoked since are valid again.")


def _restored(settings: Settings, source: Path, *, force: bool) -> list[Path]:
    root = data_dir.prepare(settings)
    with data_dir.locked(root):
        existing = [path for path in (_place(settings, archive.DATABASE), root / KEY_FILE) if path]
        if not force and any(path.exists() for path in existing):
            raise Conflict(
                f"There is an installation in {root}. Restore into an empty data directory, or "
                "say --force; what is there is kept beside it."
            )
        mark = f".before-{SystemClock().unix_ns() // _NANOS}"

        def place_of(name: str) -> Path:
            return _place(settings, name) or root / name

        def aside(path: Path) -> Path:
            return path.with_name(f"{path.name}{mark}")

        with archive.opened(source, root) as (manifest, unpacked):
            _check(settings, manifest)
            if manifest.schema is not None:
                archive.end_sessions(unpacked / archive.DATABASE)
            # A journal of what is replaced would be replayed into what replaces it.
            stale = [root / archive.JOURNAL, root / RETIRED_FILE]
            kept = [path.replace(aside(path)) for path in stale if path.exists()]
            return kept + archive.put_in_place(manifest, unpacked, place_of, aside)


def _check(settings: Settings, manifest: archive.Manifest) -> None:
    if settings.is_clustered and manifest.schema is not None:
        raise BadRequest("The backup holds an SQLite database; the settings name PostgreSQL.")
    if not settings.is_clustered and manifest.schema is None:
        raise BadRequest("The backup has no database: it is of an installation on PostgreSQL.")
    if KEY_FILE not in manifest.files:
        raise BadRequest("The backup has no installation key.")


def _place(settings: Settings, name: str) -> Path | None:
    """Where the database lies, which need not be the data directory; None for other files."""
    if name != archive.DATABASE or settings.is_clustered:
        return None
    return sqlite_path(settings.database_location)
