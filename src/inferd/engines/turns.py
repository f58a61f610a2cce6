"""Work of several requests that take turns in a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def in_turn(
    threads: ThreadPoolExecutor, cancel: asyncio.Event, work: Callable[[], T]
) -> T | None:
    """What the work makes; None where `cancel` came before its turn. Work that runs is awaited."""
    if cancel.is_set():
        return None
    running = threads.submit(work)
    made = asyncio.wrap_future(running)
    left = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait({made, left}, return_when=asyncio.FIRST_COMPLETED)
        if cancel.is_set() and running.cancel():
            return None
        return await made
    finally:
        running.cancel()
        left.cancel()
