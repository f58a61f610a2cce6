"""Locks on content, by digest, between tasks and processes alike.

They are `flock`s: the operating system frees them when their holder dies. Several are always
taken in the order of their digests, so that no two holders wait for each other.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

_POLL_SECONDS = 0.1


@asynccontextmanager
async def content_locks(
    folder: Path, digests: Iterable[str], on_wait: Callable[[], None]
) -> AsyncGenerator[None]:
    """Hold the locks of `digests`; `on_wait` is called again and again until they are free."""
    with ExitStack() as stack:
        for digest in sorted(set(digests)):
            while not _take(stack, folder / digest):
                on_wait()
                await asyncio.sleep(_POLL_SECONDS)
        yield


@contextmanager
def try_content_locks(folder: Path, digests: Iterable[str]) -> Generator[bool]:
    """Yield True with the locks held, or False without any when somebody has one of them."""
    with ExitStack() as stack:
        yield all(_take(stack, folder / digest) for digest in sorted(set(digests)))


def _take(stack: ExitStack, path: Path) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened anew each time: a flock belongs to the open file, so two tasks exclude each other too.
    file: BinaryIO = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    stack.enter_context(file)
    return True
