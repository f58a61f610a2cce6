"""A download that is under way: a file that only grows, and its digest so far."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from inferd.catalog.blocking import Stop, in_thread
from inferd.errors import Unavailable

_STEP_BYTES = 1 << 20


class Part:
    """The bytes of a download that are on disk. Its methods block; call them in a thread."""

    def __init__(self, path: Path, stop: Stop) -> None:
        """Open or create `path`, and take what it holds for the start of the download."""
        self._path = path
        self._file = path.open("ab+")
        try:
            self._digest = hashlib.sha256()
            self._file.seek(0)
            while step := self._file.read(_STEP_BYTES):
                stop.check()
                self._digest.update(step)
            self.size_bytes = self._file.tell()
        except BaseException:
            self._file.close()
            raise

    def append(self, content: bytes) -> None:
        """Write at the end. Unavailable when the disk is full or broken."""
        try:
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            reason = "is full" if error.errno == errno.ENOSPC else f"fails: {error.strerror}"
            raise Unavailable(f"The disk of the model store {reason}.") from error
        self._digest.update(content)
        self.size_bytes += len(content)

    def clear(self) -> None:
        """Forget all of it."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def discard(self) -> None:
        """Remove the file: its content is wrong."""
        self._path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Have it on the disk, also after a power cut."""
        os.fsync(self._file.fileno())

    def sha256(self) -> str:
        """Digest of all of it, in hex."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file; what it holds stays."""
        self._file.close()


@asynccontextmanager
async def opened_part(path: Path) -> AsyncGenerator[Part]:
    """A part that is closed in the end, also where its opening was cancelled half way."""
    opened: list[Part] = []
    try:
        await in_thread(lambda stop: opened.append(Part(path, stop)))
        yield opened[0]
    finally:
        for part in opened:
            part.close()
