"""The local journal: where ledger writes go while the database is away.

One JSON line for each write, fsynced before it counts. Replaying is idempotent, so a crash
between replay and removal loses nothing and doubles nothing.

A reserve beside it is given up when the disk is full, so that what runs then is still recorded;
new work waits until there is a reserve again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from inferd.storage.rows import LedgerWrite

_DECODER: msgspec.json.Decoder[LedgerWrite] = msgspec.json.Decoder(LedgerWrite)
_ENCODER = msgspec.json.Encoder()
RESERVE_BYTES = 1024 * 1024
"""A thousand entries and more."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: OSError) -> bool:
    """True if the disk, or what we may use of it, is full."""
    return error.errno in _FULL


class Journal:
    """An append-only file beside the database."""

    def __init__(self, path: Path, *, reserve: Path | None = None) -> None:
        self.path = path
        self.cramped = False
        """The reserve was given up and is not there again."""
        self._reserve = reserve
        self._pending = path.exists()

    def append(self, writes: list[LedgerWrite]) -> None:
        """Write and fsync. Raises OSError; then none of it counts."""
        lines = b"".join(_ENCODER.encode(write) + b"\n" for write in writes)
        self._pending = True
        try:
            self._append(lines)
        except OSError as error:
            if not is_full(error) or not self._give_up_reserve():
                raise
            self._append(lines)

    def keep_reserve(self) -> bool:
        """Make the reserve if it is not there; False if the disk has no room for it."""
        if self._reserve is None or self._reserve.exists():
            return True
        try:
            # Not zeros: some file systems store none of them.
            self._reserve.write_bytes(os.urandom(RESERVE_BYTES))
        except OSError:
            self._reserve.unlink(missing_ok=True)
            self.cramped = True
            return False
        self.cramped = False
        return True

    def _give_up_reserve(self) -> bool:
        if self._reserve is None or not self._reserve.exists():
            return False
        self._reserve.unlink()
        self.cramped = True
        return True

    def _append(self, lines: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            before = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, lines)
                os.fsync(descriptor)
            except OSError:
                # A half line must not hide what is written after it.
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)

    def pending(self) -> bool:
        """True if there is something to replay. Asked at every commit, so no file is looked at."""
        return self._pending

    def read(self) -> Iterator[LedgerWrite]:
        """All writes, oldest first; a torn last line (kill in the middle of it) never counted."""
        if not self.path.exists():
            return
        with self.path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield _DECODER.decode(line)

    def read_some(self, at_byte: int, count_max: int) -> tuple[list[LedgerWrite], int]:
        """Up to so many writes from a position on, and the position behind them."""
        writes: list[LedgerWrite] = []
        with self.path.open("rb") as lines:
            lines.seek(at_byte)
            for line in lines:
                if not line.endswith(b"\n") or len(writes) == count_max:
                    break
                writes.append(_DECODER.decode(line))
                at_byte += len(line)
        return writes, at_byte

    def clear(self) -> None:
        """Remove it, after everything in it was committed."""
        self.path.unlink(missing_ok=True)
        self._pending = False


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
