"""The data directory: made private, locked by the one server that uses it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from inferd.errors import Unavailable
from inferd.settings import Settings


class ServerFile(msgspec.Struct, frozen=True):
    """`server.json`: how this machine's command line reaches the running server."""

    url: str
    token: str
    """An admin secret that lives as long as the server."""
    pid: int


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
    """Hold the lock. Raises Unavailable if another server does."""
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Unavailable(f"Another inferd is serving from {root}.") from None
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(root: Path) -> bool:
    """True while a server holds the lock."""
    try:
        with locked(root):
            return False
    except FileNotFoundError:
        return False
    except Unavailable:
        return True


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
    if not root.exists() or not is_locked(root):
        return None
    try:
        return msgspec.json.decode((root / "server.json").read_bytes(), type=ServerFile)
    except (FileNotFoundError, msgspec.DecodeError):
        raise Unavailable("A server is just starting or stopping; try again.") from None
