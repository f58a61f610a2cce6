"""The installation's key: 32 random bytes that every stored digest depends on."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from inferd.errors import Unavailable

KEY_BYTES = 32


def installation_key(data_dir: Path) -> bytes:
    """Read `secret.key`, or make it. Raises Unavailable if it is not what it should be."""
    path = data_dir / "secret.key"
    if not path.exists():
        _make(path)
    found = path.stat()
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Unavailable(f"{path.name} can be read by others; run chmod 600 on it.")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise Unavailable(f"{path.name} holds {len(key)} bytes, not {KEY_BYTES}; restore it.")
    return key


def _make(path: Path) -> None:
    """Write it whole or not at all; of two processes at once, the first one's stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        # Not rename: link fails if the file exists by now.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
