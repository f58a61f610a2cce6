"""Turns a library that computes batches into one that many requests share.

What waits is cut into steps of like length. Nothing waits for a timer: an idle lane starts at
once, and whatever comes while it computes is in the next step. Requests take turns, so that a
long list does not hold up a single text.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

from inferd.errors import EngineFailed, InferdError

Item = TypeVar("Item")
Result = TypeVar("Result")

_ALIKE = 0.8
"""An item joins a step if it is at least this share of the longest: the rest is padding."""
_ALIKE_SIZE = 8
"""Or if it is shorter by no more than this: less than the fixed cost of another step."""


class Shape(msgspec.Struct, frozen=True):
    """How large a step may be."""

    items_max: int
    size_max: int
    """Of the longest item times the number of items: what padding makes of them."""
    lanes: int = 1
    """Steps that are computed side by side, each in a thread."""


class _Waiting(Generic[Item, Result]):
    """One item in line."""

    __slots__ = ("group", "index", "item", "key", "taken")

    def __init__(
        self, key: tuple[int, int], index: int, item: Item, group: _Group[Item, Result]
    ) -> None:
        self.key = key
        """(size, when it came)."""
        self.index = index
        self.item = item
        self.group = group
        self.taken = False


class _Group(Generic[Item, Result]):
    """The items of one request."""

    def __init__(self) -> None:
        self.queue: list[_Waiting[Item, Result]] = []
        """Longest last. Those that are taken stay until they are met."""
        self.ready: deque[tuple[int, Result | InferdError]] = deque()
        self.woken = asyncio.Event()

    def longest(self) -> _Waiting[Item, Result] | None:
        """The longest that still waits."""
        while self.queue and self.queue[-1].taken:
            self.queue.pop()
        return self.queue[-1] if self.queue else None


class Batches(Generic[Item, Result]):
    """A shared computation. Lives in one event loop; `compute` runs in threads."""

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Result | InferdError]],
        shape: Shape,
        name: str = "batch",
    ) -> None:
        self._compute = compute
        self._shape = shape
        self._threads = ThreadPoolExecutor(shape.lanes, thread_name_prefix=name)
        self._line: list[_Waiting[Item, Result]] = []
        """All that wait, by size and then age."""
        self._turns: deque[_Group[Item, Result]] = deque()
        self._steps: set[asyncio.Task[None]] = set()
        self._came = 0
        self._starting = False

    async def run(
        self, items: Sequence[Item], sizes: Sequence[int], cancel: asyncio.Event
    ) -> AsyncGenerator[tuple[int, Result]]:
        """(index, result) of each item, as they are finished.

        Ends early when `cancel` is set, at most one step later. Raises the error of an item.
        """
        if not items:
            return
        group = self._enter(items, sizes)
        watching = asyncio.ensure_future(_wake(cancel, group.woken))
        try:
            for _ in items:
                while not group.ready and not cancel.is_set():
                    group.woken.clear()
                    await group.woken.wait()
                if not group.ready:
                    return
                index, result = group.ready.popleft()
                if isinstance(result, InferdError):
                    raise result
                yield index, result
        finally:
            watching.cancel()
            self._leave(group)

    def _enter(self, items: Sequence[Item], sizes: Sequence[int]) -> _Group[Item, Result]:
        group: _Group[Item, Result] = _Group()
        for index, (item, size) in enumerate(zip(items, sizes, strict=True)):
            self._came += 1
            group.queue.append(_Waiting((size, self._came), index, item, group))
        group.queue.sort(key=_key)
        self._line.extend(group.queue)
        # Two sorted runs: the sort finds them and merges.
        self._line.sort(key=_key)
        self._turns.append(group)
        if not self._starting:
            # At the end of this turn of the loop, so that what comes together goes together.
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start)
        return group

    def _leave(self, group: _Group[Item, Result]) -> None:
        """Nobody asks for the rest any more."""
        if group.longest() is None:
            return
        for waiting in group.queue:
            waiting.taken = True
        self._line = [waiting for waiting in self._line if not waiting.taken]

    def _start(self) -> None:
        """Begin as many steps as there are free lanes."""
        self._starting = False
        while len(self._steps) < self._shape.lanes and (step := self._cut()):
            task = asyncio.ensure_future(self._step(step))
            self._steps.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._steps.discard(task)
        self._start()

    def _cut(self) -> list[_Waiting[Item, Result]]:
        """The next step: the longest item of whose turn it is, and its neighbours in length."""
        while self._turns:
            group = self._turns.popleft()
            if (seed := group.longest()) is not None:
                break
        else:
            return []
        low, high = self._window(bisect_left(self._line, seed.key, key=_key))
        step = self._line[low:high]
        del self._line[low:high]
        for waiting in step:
            waiting.taken = True
        if group.longest() is not None:
            self._turns.append(group)
        return step

    def _window(self, at: int) -> tuple[int, int]:
        """Where the neighbours of `at` begin and end, shorter ones first."""
        line, low, high = self._line, at, at + 1
        while low > 0 and self._fits(line[low - 1].key[0], line[at].key[0], high - low + 1):
            low -= 1
        while high < len(line) and self._fits(line[low].key[0], line[high].key[0], high - low + 1):
            high += 1
        return low, high

    def _fits(self, shortest: int, longest: int, count: int) -> bool:
        shape = self._shape
        alike = shortest >= _ALIKE * longest or longest - shortest <= _ALIKE_SIZE
        return alike and count <= shape.items_max and longest * count <= shape.size_max

    async def _step(self, step: list[_Waiting[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        items = [waiting.item for waiting in step]
        results = await loop.run_in_executor(self._threads, self._computed, items)
        for waiting, result in zip(step, results, strict=True):
            waiting.group.ready.append((waiting.index, result))
            waiting.group.woken.set()

    def _computed(self, items: list[Item]) -> list[Result | InferdError]:
        """In a thread. A step that fails is halved until the item at fault is alone."""
        try:
            results = list(self._compute(items))
        except Exception as error:  # noqa: BLE001 a library may raise anything on an odd item
            if len(items) == 1:
                return [_failure(error)]
            middle = len(items) // 2
            return self._computed(items[:middle]) + self._computed(items[middle:])
        if len(results) != len(items):
            return [EngineFailed("The engine lost count of a batch.") for _ in items]
        return results

    async def close(self) -> None:
        """Nothing new starts; returns when the running steps are over."""
        self._line.clear()
        self._turns.clear()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._steps)
        self._threads.shutdown(wait=False)


def _key(waiting: _Waiting[Item, Result]) -> tuple[int, int]:
    return waiting.key


async def _wake(cancel: asyncio.Event, woken: asyncio.Event) -> None:
    await cancel.wait()
    woken.set()


def _failure(error: Exception) -> InferdError:
    if isinstance(error, InferdError):
        return error
    return EngineFailed("The engine failed on this input.", detail=repr(error)[:500])
