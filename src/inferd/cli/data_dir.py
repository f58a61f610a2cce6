"""The data directory: made private, locked by the one server that uses it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from inferd.errors import Unavailable
from inferd.settings import Settings

LOCK_PAUSES_SECONDS = (0.05, 0.1, 0.2)
"""A command that only looks whether a server runs holds the lock for a moment; wait it out."""


class ServerFile(msgspec.Struct, frozen=True):
    """`server.json`: how this machine's command line reaches the running server."""

    url: str
    token: str
    """An admin secret that lives as long as the server."""
    pid: int
    certificate_sha256: str = ""
    """Of the certificate that it shows; "": no TLS."""


def prepare(settings: Settings) -> Path:
    """Make the directories, for their owner alone. Raises Unavailable."""
    root = settings.data_path
    try:
        for path in (root, root / "logs", root / "store", root / "cards"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"Cannot use the data directory {root}: {error.strerror}.") from error
    return root


@contextmanager
def locked(root: Path) -> Generator[None]:
    """Hold the lock. Raises Unavailable if another server or command does."""
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _acquired(descriptor):
            raise Unavailable(f"Another inferd is serving from {root}, or a command works there.")
        yield
    finally:
        os.close(descriptor)


def _acquired(descriptor: int) -> bool:
    for pause in LOCK_PAUSES_SECONDS:
        if _flock(descriptor, fcntl.LOCK_EX):
            return True
        time.sleep(pause)
    return _flock(descriptor, fcntl.LOCK_EX)


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(root: Path) -> bool:
    """True while a server, or a command that works without one, holds the lock."""
    try:
        descriptor = os.open(root / "lock", os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        # Shared, so that two commands that look at once do not take each other for a server.
        return not _flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def write_server_file(root: Path, content: ServerFile) -> None:
    """Publish it whole, readable by the owner alone."""
    draft = root / f".server.json.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(content))
    draft.replace(root / "server.json")


def remove_server_file(root: Path) -> None:
    """Take it back."""
    (root / "server.json").unlink(missing_ok=True)


def running_server(settings: Settings) -> ServerFile | None:
    """The server that uses this data directory, or None."""
    root = settings.data_path
    if not is_locked(root):
        return None
    try:
        return msgspec.json.decode((root / "server.json").read_bytes(), type=ServerFile)
    except (FileNotFoundError, msgspec.DecodeError):
        raise Unavailable(
            f"Another inferd is using {root}: a server that is just starting or stopping, "
            "or a command. Try again."
        ) from None
