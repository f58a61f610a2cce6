"""The installation's key: 32 random bytes that every stored digest depends on."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

from inferd.errors import Unavailable

KEY_BYTES = 32
KEY_FILE = "secret.key"
RETIRED_FILE = "secret.key.retired"
"""Keys that were replaced, the newest first, while a token may still lie under one."""


class InstallationKeys(NamedTuple):
    """The key, and those that it replaced."""

    current: bytes
    retired: tuple[bytes, ...]


def installation_keys(data_dir: Path) -> InstallationKeys:
    """Read them, or make the first. Raises Unavailable if they are not what they should be."""
    current = installation_key(data_dir)
    path = data_dir / RETIRED_FILE
    if not path.exists():
        return InstallationKeys(current, ())
    content = _private(path)
    if len(content) % KEY_BYTES:
        raise Unavailable(f"{path.name} does not hold whole keys; restore it.")
    starts = range(0, len(content), KEY_BYTES)
    keys = (content[start : start + KEY_BYTES] for start in starts)
    # A rotation that was interrupted left the current key among the retired ones.
    return InstallationKeys(current, tuple(key for key in keys if key != current))


def rotate(data_dir: Path) -> InstallationKeys:
    """Make a new key and retire the current one; whole, wherever it is interrupted."""
    before = installation_keys(data_dir)
    retired = (before.current, *before.retired)
    # First: from here on a crash loses no key, wherever it comes.
    _write(data_dir / RETIRED_FILE, b"".join(retired))
    new = secrets.token_bytes(KEY_BYTES)
    _write(data_dir / KEY_FILE, new)
    return InstallationKeys(new, retired)


def forget_retired(data_dir: Path) -> None:
    """No token lies under a retired key any more."""
    (data_dir / RETIRED_FILE).unlink(missing_ok=True)


def installation_key(data_dir: Path) -> bytes:
    """Read `secret.key`, or make it. Raises Unavailable if it is not what it should be."""
    path = data_dir / KEY_FILE
    if not path.exists():
        _make(path)
    key = _private(path)
    if len(key) != KEY_BYTES:
        raise Unavailable(f"{path.name} holds {len(key)} bytes, not {KEY_BYTES}; restore it.")
    return key


def _private(path: Path) -> bytes:
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Unavailable(f"{path.name} can be read by others; run chmod 600 on it.")
    return path.read_bytes()


def _make(path: Path) -> None:
    """Write it whole or not at all; of two processes at once, the first one's stays."""
    draft = _draft(path, secrets.token_bytes(KEY_BYTES))
    try:
        # Not rename: link fails if the file exists by now.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _write(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all."""
    _draft(path, content).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # The new name must last as long as what is written under the new key.
        os.fsync(folder)
    finally:
        os.close(folder)


def _draft(path: Path, content: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return draft
