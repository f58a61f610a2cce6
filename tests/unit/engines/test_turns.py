"""Work that waits for its turn is given up at once; work that runs comes to its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferd.engines.turns import in_turn


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as found:
        yield found


async def test_work_is_done_in_its_turn(thread: ThreadPoolExecutor) -> None:
    cancel = asyncio.Event()
    turns = [in_turn(thread, cancel, lambda at=at: at) for at in range(5)]
    assert await asyncio.gather(*turns) == [0, 1, 2, 3, 4]


async def test_who_leaves_does_not_wait_for_a_turn(thread: ThreadPoolExecutor) -> None:
    begun: list[str] = []
    running, let_go = threading.Event(), threading.Event()

    def long() -> str:
        running.set()
        let_go.wait()
        return "long"

    first_leaves, second_leaves = asyncio.Event(), asyncio.Event()
    first = asyncio.ensure_future(in_turn(thread, first_leaves, long))
    await asyncio.to_thread(running.wait)
    second = asyncio.ensure_future(in_turn(thread, second_leaves, lambda: begun.append("second")))
    await asyncio.sleep(0)
    second_leaves.set()
    async with asyncio.timeout(10):
        assert await second is None
    first_leaves.set()
    let_go.set()
    assert await first == "long"
    assert begun == []


async def test_who_has_left_begins_nothing(thread: ThreadPoolExecutor) -> None:
    cancel, begun = asyncio.Event(), list[int]()
    cancel.set()
    assert await in_turn(thread, cancel, lambda: begun.append(1)) is None
    assert begun == []


async def test_a_fault_of_the_work_is_raised(thread: ThreadPoolExecutor) -> None:
    def breaks() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await in_turn(thread, asyncio.Event(), breaks)
