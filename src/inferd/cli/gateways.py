"""The gateways of a data directory: their names, their folders, one process for each at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from inferd import ids
from inferd.errors import Unavailable
from inferd.serving.remote_router import RemoteRouter

LOCK_SECONDS_MAX = 15.0
"""How long a gateway waits for an earlier process of its name to end."""
_NAME_FILE = "gateway"
_FOLDER = "gateways"


class Seat(msgspec.Struct, frozen=True):
    """A gateway's place beside others of its machine."""

    index: int
    router: RemoteRouter


def gateway_name(root: Path, index: int) -> str:
    """What a gateway is called in the database: the same after each start, another elsewhere."""
    path = root / _NAME_FILE
    try:
        name = path.read_text().strip()
    except FileNotFoundError:
        name = _made(path)
    return f"{name}.{index}"


def _made(path: Path) -> str:
    draft = path.with_name(f".{_NAME_FILE}.{os.getpid()}")
    draft.write_text(ids.sortable("gw") + "\n")
    try:
        # Not rename: of two processes at once, the first one's name stays.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()


def folder(root: Path, index: int) -> Path:
    """Where a gateway's journal lies: of the first one, where it lies if there is no other."""
    if index == 0:
        return root
    path = root / _FOLDER / str(index)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def beyond(root: Path, count: int) -> Iterator[int]:
    """Gateways of an earlier start with more of them: nobody else looks after their journals."""
    for path in (root / _FOLDER).glob("*"):
        if path.name.isdigit() and int(path.name) >= count:
            yield int(path.name)


@asynccontextmanager
async def alone(where: Path) -> AsyncGenerator[None]:
    """Hold a gateway's folder. A process of an earlier supervisor may still be settling there.

    Raises Unavailable if it does not end.
    """
    descriptor = os.open(where / "gateway.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        ends = asyncio.get_running_loop().time() + LOCK_SECONDS_MAX
        while not _locked(descriptor):
            if asyncio.get_running_loop().time() > ends:
                raise Unavailable(f"Another gateway still works in {where}.")
            await asyncio.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
