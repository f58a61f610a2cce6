"""What shared batches guarantee: order, fairness, like lengths, one failure alone, cancelling."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.engines.batching import Batches, Shape
from inferd.errors import BadRequest, EngineFailed, InferdError

SHAPE = Shape(items_max=4, size_max=40)


class Library:
    """Doubles numbers. Notes each step; waits before a step while its gate is shut."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def __call__(self, items: list[int]) -> Sequence[int | InferdError]:
        self.begun.set()
        assert self.gate.wait(10)
        self.steps.append(items)
        if 13 in items:
            raise ValueError("13")
        return [BadRequest("7") if item == 7 else 2 * item for item in items]


@asynccontextmanager
async def opened(
    compute: Callable[[list[int]], Sequence[int | InferdError]], shape: Shape = SHAPE
) -> AsyncGenerator[Batches[int, int]]:
    batches = Batches(compute, shape)
    try:
        yield batches
    finally:
        await batches.close()


async def doubled(
    batches: Batches[int, int], items: list[int], cancel: asyncio.Event | None = None
) -> list[int | None]:
    """The results in the order of the items; None where there was none."""
    results: list[int | None] = [None] * len(items)
    running = batches.run(items, [1 + item for item in items], cancel or asyncio.Event())
    async with aclosing(running):
        async for index, result in running:
            results[index] = result
    return results


async def held(library: Library, batches: Batches[int, int]) -> asyncio.Task[list[int | None]]:
    """A step of its own that computes until the gate opens."""
    library.gate.clear()
    running = asyncio.ensure_future(doubled(batches, [0]))
    await asyncio.to_thread(library.begun.wait, 10)
    return running


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(20, 38), min_size=0, max_size=12), min_size=1, max_size=6),
    st.integers(1, 3),
)
def test_each_request_gets_its_own_results_in_its_order(
    requests: list[list[int]], lanes: int
) -> None:
    library = Library()

    async def ask() -> list[list[int | None]]:
        async with opened(library, Shape(items_max=4, size_max=100, lanes=lanes)) as batches:
            return await asyncio.gather(*(doubled(batches, items) for items in requests))

    assert asyncio.run(ask()) == [[2 * item for item in items] for items in requests]
    seen = [item for step in library.steps for item in step]
    assert sorted(seen) == sorted(item for items in requests for item in items)
    for step in library.steps:
        assert len(step) <= 4
        assert len(step) == 1 or max(1 + item for item in step) * len(step) <= 100


async def test_idle_means_at_once_and_busy_means_together() -> None:
    library = Library()
    async with opened(library) as batches:
        first = await held(library, batches)
        others = [asyncio.ensure_future(doubled(batches, [item])) for item in (3, 1, 2)]
        await asyncio.sleep(0)
        library.gate.set()
        assert await first == [0]
        assert await asyncio.gather(*others) == [[6], [2], [4]]
    assert [sorted(step) for step in library.steps] == [[0], [1, 2, 3]]


async def test_a_step_holds_items_of_like_length() -> None:
    library = Library()
    async with opened(library, Shape(items_max=8, size_max=10_000)) as batches:
        await doubled(batches, [100, 1, 99, 2, 98, 3])
    assert [sorted(step) for step in library.steps] == [[98, 99, 100], [1, 2, 3]]


async def test_a_long_list_does_not_hold_up_a_single_item() -> None:
    library = Library()
    async with opened(library, Shape(items_max=1, size_max=10_000)) as batches:
        first = await held(library, batches)
        long = asyncio.ensure_future(doubled(batches, [20] * 50))
        await asyncio.sleep(0)
        short = asyncio.ensure_future(doubled(batches, [1]))
        await asyncio.sleep(0)
        library.gate.set()
        await asyncio.gather(first, short, long)
    assert library.steps.index([1]) <= 3


async def test_who_fails_fails_alone() -> None:
    library = Library()
    async with opened(library, Shape(items_max=64, size_max=10_000)) as batches:
        first = await held(library, batches)
        good = [asyncio.ensure_future(doubled(batches, [item])) for item in (11, 12, 14, 15)]
        broken = asyncio.ensure_future(doubled(batches, [13]))
        refused = asyncio.ensure_future(doubled(batches, [9, 7]))
        await asyncio.sleep(0)
        library.gate.set()
        with pytest.raises(EngineFailed):
            await broken
        with pytest.raises(BadRequest, match="7"):
            await refused
        assert await asyncio.gather(*good) == [[22], [24], [28], [30]]
        assert await first == [0]


async def test_a_library_that_loses_count_fails_the_step() -> None:
    async with opened(lambda items: items[1:]) as batches:
        with pytest.raises(EngineFailed):
            await doubled(batches, [1, 2])


async def test_who_cancels_is_out_of_the_line() -> None:
    library = Library()
    async with opened(library) as batches:
        first = await held(library, batches)
        cancel = asyncio.Event()
        leaving = asyncio.ensure_future(doubled(batches, [5, 6], cancel))
        staying = asyncio.ensure_future(doubled(batches, [8]))
        await asyncio.sleep(0)
        cancel.set()
        # It ends although the step before it still computes.
        assert await leaving == [None, None]
        library.gate.set()
        assert await staying == [16]
        await first
    assert library.steps == [[0], [8]]


async def test_who_closes_the_iterator_is_out_of_the_line() -> None:
    library = Library()
    async with opened(library, Shape(items_max=1, size_max=10_000)) as batches:
        running = batches.run([21, 22, 23], [1, 1, 1], asyncio.Event())
        async for _ in running:
            library.gate.clear()
            break
        await running.aclose()
        library.gate.set()
        await doubled(batches, [30])
    assert [30] in library.steps
    assert len(library.steps) <= 3


async def test_no_items_no_step() -> None:
    library = Library()
    async with opened(library) as batches:
        assert await doubled(batches, []) == []
    assert library.steps == []
