"""A download that is cancelled ends, whatever its connection says, and leaves no file open."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from inferd.catalog.blocking import Stop
from inferd.catalog.sources import part
from inferd.catalog.sources.http import TransferFailed
from inferd.catalog.sources.part import Part, opened_part
from inferd.catalog.sources.transfer import insist


async def test_a_connection_that_fails_while_it_is_cancelled_is_not_tried_again() -> None:
    tries = [0]
    began = asyncio.Event()

    async def attempt() -> None:
        tries[0] += 1
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            # As a client library does that is torn down in the middle of a read.
            raise TransferFailed("the connection was closed")

    work = asyncio.ensure_future(insist(attempt, 0))
    await began.wait()
    work.cancel()
    await asyncio.wait([work], timeout=5)
    assert work.cancelled()
    assert tries == [1]


async def test_a_part_whose_opening_is_cancelled_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Part] = []
    reached, goes_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Slow(Part):
        def __init__(self, path: Path, stop: Stop) -> None:
            super().__init__(path, stop)
            opened.append(self)
            loop.call_soon_threadsafe(reached.set)
            goes_on.wait(10)

    monkeypatch.setattr(part, "Part", Slow)

    async def use() -> None:
        async with opened_part(tmp_path / "a.part"):
            raise AssertionError("it was cancelled before")

    work = asyncio.ensure_future(use())
    await reached.wait()
    work.cancel()
    await asyncio.sleep(0)
    goes_on.set()
    await asyncio.wait([work], timeout=5)
    assert work.cancelled()
    with pytest.raises(ValueError, match="closed file"):
        opened[0].sync()
