"""The local journal: where ledger writes go while the database is away.

One JSON line for each write, fsynced before it counts. Replaying is idempotent, so a crash
between replay and removal loses nothing and doubles nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from inferd.storage.rows import LedgerWrite

_DECODER: msgspec.json.Decoder[LedgerWrite] = msgspec.json.Decoder(LedgerWrite)
_ENCODER = msgspec.json.Encoder()


class Journal:
    """An append-only file beside the database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending = path.exists()

    def append(self, writes: list[LedgerWrite]) -> None:
        """Write and fsync. Raises OSError; then none of it counts."""
        lines = b"".join(_ENCODER.encode(write) + b"\n" for write in writes)
        self._pending = True
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
