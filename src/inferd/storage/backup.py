"""A backup is one tar file: a manifest with checksums, then the files that it names.

The database is copied by SQLite's own backup interface, so a server may go on writing meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from hashlib import file_digest
from pathlib import Path
from urllib.parse import quote

import msgspec

from inferd import __version__
from inferd.errors import BadRequest, Unavailable
from inferd.storage.migrate import HEAD

DATABASE = "inferd.db"
JOURNAL = "ledger.journal"
MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 64 * 1024 * 1024
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")


class FileEntry(msgspec.Struct, frozen=True):
    """One file of a backup."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds, and what wrote it."""

    inferd: str
    schema: str | None
    """Of the database; None: the database is elsewhere."""
    created_unix: int
    files: dict[str, FileEntry]


def write(
    target: Path, database: Path | None, files: Mapping[str, Path], created_unix: int
) -> Manifest:
    """Write a backup, whole or not at all, for its owner alone. Raises OSError, Unavailable."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=target.parent)))
        # The journal before the database: what moves between them meanwhile is in both, and
        # replaying it changes nothing.
        sources = {
            name: _kept(path, folder / f"{n}") for n, (name, path) in enumerate(files.items())
        }
        schema = None
        if database is not None:
            sources[DATABASE] = folder / DATABASE
            schema = snapshot(database, folder / DATABASE)
        entries = {name: _entry(path) for name, path in sources.items()}
        manifest = Manifest(__version__, schema, created_unix, entries)
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        draft = folder / "backup.tar"
        _pack(draft, {MANIFEST: folder / MANIFEST, **sources})
        draft.replace(target)
    return manifest


def _kept(path: Path, copy: Path) -> Path:
    """A copy that does not change while it is read."""
    shutil.copyfile(path, copy)
    return copy


def snapshot(database: Path, target: Path) -> str | None:
    """Copy a database that may be in use; returns its schema. Raises Unavailable."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(_read_only(database)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            # In one step: it would begin anew at every write that comes between two.
            source.backup(copy)
            # One file, no log beside it.
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise Unavailable(f"The database cannot be copied: {error}.") from error
    return schema_of(target)


def _read_only(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)


def schema_of(database: Path) -> str | None:
    """The newest migration that a database has. Raises BadRequest if it is damaged."""
    try:
        with closing(_read_only(database)) as connection:
            if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise BadRequest(f"{database.name} is damaged.")
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise BadRequest(f"{database.name} is no database of inferd: {error}.") from error
    return str(row[0]) if row else None


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(path.stat().st_size, file_digest(file, "sha256").hexdigest())


def _pack(target: Path, files: Mapping[str, Path]) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, path in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = path.stat().st_size, 0o600
                with path.open("rb") as content:
                    archive.addfile(info, content)
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def opened(source: Path, folder: Path) -> Generator[tuple[Manifest, Path]]:
    """A backup, verified and unpacked into a new folder beside `folder`'s files.

    Raises BadRequest for anything but a whole backup that this version can use.
    """
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=folder) as name:
        unpacked = Path(name)
        try:
            with tarfile.open(source, mode="r:") as archive:
                manifest = _manifest(archive)
                _unpack(archive, manifest, unpacked)
        except (tarfile.TarError, EOFError) as error:
            raise BadRequest(f"{source.name} is no backup of inferd: {error}.") from error
        if manifest.schema is not None:
            found = schema_of(unpacked / DATABASE)
            if found is None or found != manifest.schema or found > HEAD:
                raise BadRequest(
                    f"The backup was written by inferd {manifest.inferd} (schema {found}, this "
                    f"one knows {HEAD}). Upgrade inferd."
                )
        yield manifest, unpacked


def _manifest(archive: tarfile.TarFile) -> Manifest:
    first = archive.next()
    if first is None or first.name != MANIFEST or first.size > MANIFEST_BYTES_MAX:
        raise BadRequest("The file is no backup of inferd: it does not begin with a manifest.")
    content = archive.extractfile(first)
    assert content is not None, "a regular file has content"
    try:
        manifest = msgspec.convert(json.load(content), Manifest)
    except (ValueError, msgspec.ValidationError) as error:
        raise BadRequest(f"The backup's manifest cannot be read: {error}.") from error
    for name in manifest.files:
        if len(name.split("/")) > 3 or not all(map(_PART.fullmatch, name.split("/"))):
            raise BadRequest(f"The backup's manifest names a strange file: {name[:100]!r}.")
    if (DATABASE in manifest.files) != (manifest.schema is not None):
        raise BadRequest("The backup's manifest does not fit its database.")
    return manifest


def _unpack(archive: tarfile.TarFile, manifest: Manifest, folder: Path) -> None:
    missing = dict(manifest.files)
    while (member := archive.next()) is not None:
        entry = missing.pop(member.name, None)
        if entry is None or not member.isreg() or member.size != entry.bytes:
            raise BadRequest(
                f"The backup holds a file that its manifest does not: {member.name!r}."
            )
        target = folder / member.name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = archive.extractfile(member)
        assert content is not None, "a regular file has content"
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        if _entry(target) != entry:
            raise BadRequest(f"{member.name} in the backup is damaged: its checksum differs.")
    if missing:
        raise BadRequest(f"The backup lacks {', '.join(sorted(missing)[:5])}.")


def end_sessions(database: Path) -> None:
    """Nobody is signed in after a restore: sessions that ended since must not live again."""
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        for table in {"sessions", "sign_ins", "command_sign_ins"} & tables:
            connection.execute(f"DELETE FROM {table}")


Aside = Callable[[Path], Path]


def put_in_place(
    manifest: Manifest, unpacked: Path, place_of: Callable[[str], Path], aside: Aside
) -> list[Path]:
    """Move the files to their places, the database last; what was there goes aside.

    Returns what went aside.
    """
    kept: list[Path] = []
    names = sorted(manifest.files, key=lambda name: name == DATABASE)
    for name in names:
        place = place_of(name)
        logs = [Path(f"{place}-wal"), Path(f"{place}-shm")] if name == DATABASE else []
        for existing in (place, *logs):
            if existing.exists():
                kept.append(existing.replace(aside(existing)))
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The database may lie on another disk.
        shutil.move(unpacked / name, place)
    return kept
