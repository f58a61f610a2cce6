"""Takes files out of npm's tarballs; nothing in one is executed, no name in it a path."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from inferd.catalog.blocking import Stop
from inferd.catalog.sources.wheel import WheelBroken

_STEP_BYTES = 1 << 20
_UNPACKED_BYTES_MAX = 8 << 30
"""Of a whole archive: reading past a member unpacks it too."""


def join_tarball(
    tarballs: Sequence[Path], members: Sequence[str], target: Path, stop: Stop, bytes_max: int
) -> str:
    """Write the members, in order, to `target`; return the sha256 of the whole in hex."""
    digest, written = hashlib.sha256(), 0
    with ExitStack() as stack:
        try:
            archives = [stack.enter_context(tarfile.open(path, "r:gz")) for path in tarballs]
            file = stack.enter_context(target.open("wb"))
            for step in _steps(archives, members):
                stop.check()
                written += len(step)
                if written > bytes_max:
                    raise WheelBroken(f"it unpacks to more than {bytes_max} bytes")
                digest.update(step)
                file.write(step)
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise WheelBroken(f"it is no readable tarball ({error})") from error
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _steps(archives: Sequence[tarfile.TarFile], members: Sequence[str]) -> Iterator[bytes]:
    entries = [_entries(archive) for archive in archives]
    for member in members:
        for archive, known in zip(archives, entries, strict=True):
            if member in known:
                source = archive.extractfile(known[member])
                assert source is not None, "only plain files are in there"
                while step := source.read(_STEP_BYTES):
                    yield step
                break
        else:
            raise WheelBroken(f"it has no plain file {member}")


def _entries(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    known: dict[str, tarfile.TarInfo] = {}
    unpacked = 0
    for entry in archive:
        unpacked += entry.size
        if unpacked > _UNPACKED_BYTES_MAX:
            raise WheelBroken("it unpacks to more than any model needs")
        if entry.isreg():
            known[entry.name] = entry
    return known
