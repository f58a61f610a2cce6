"""Files that callers may fetch for a day: pictures and films that were made for them.

A name has 128 random bits: who knows it may read the file, and nobody can guess it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path

from inferd.clock import Clock
from inferd.errors import NotFound

KEPT_SECONDS = 24 * 3600
_NAME = re.compile(r"[0-9a-f]{32}")
_NANOS = 1_000_000_000


class Blobs:
    """A folder of such files. Several gateways may share it."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    async def put(self, content: bytes | bytearray) -> str:
        """Keep a file; return its name."""
        name = secrets.token_hex(16)
        await asyncio.to_thread(self._put, name, content)
        return name

    async def get(self, name: str) -> bytes:
        """A file. Raises NotFound for what never was or is over a day old."""
        if not _NAME.fullmatch(name):
            raise NotFound("Not Found")
        content = await asyncio.to_thread(self._get, name)
        if content is None:
            raise NotFound("There is no such file, or it was deleted after a day.")
        return content

    def path(self, name: str) -> Path:
        """Where the file of a name lies, for a worker on this machine."""
        return self._folder / name

    def _put(self, name: str, content: bytes | bytearray) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        part = self._folder / f"{name}.part"
        part.write_bytes(content)
        part.replace(self._folder / name)

    def _get(self, name: str) -> bytes | None:
        path = self._folder / name
        try:
            if self._expired(path):
                return None
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def _sweep(self) -> None:
        for path in self._folder.iterdir():
            try:
                if self._expired(path):
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue

    def _expired(self, path: Path) -> bool:
        return path.stat().st_mtime < self._clock.unix_ns() / _NANOS - KEPT_SECONDS
