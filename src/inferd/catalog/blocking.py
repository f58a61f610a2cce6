"""Runs blocking file work beside the event loop, so that a cancelled caller leaves none behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Interrupted(Exception):
    """The work was asked to stop; raised inside the thread, never seen by a caller."""


class Stop:
    """What blocking work looks at between two steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask the work to end."""
        self._event.set()

    def check(self) -> None:
        """Raise Interrupted when the work should end."""
        if self._event.is_set():
            raise Interrupted


async def in_thread(work: Callable[[Stop], T]) -> T:
    """Run `work` in a thread. A cancellation waits until the thread has ended."""
    stop = Stop()
    future = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue  # One is under way; the thread still has a file open.
        future.exception()
        raise
