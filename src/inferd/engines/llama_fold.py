"""Brings the reports of a request's choices into the event loop and folds them into events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from inferd.engines.answer_parser import Parsed
from inferd.engines.llama_choice import Counted, Ended, LlamaChoice, Moved, Report
from inferd.tasks.base import NOTHING, Progress, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.text_generation import Done, FinishReason, Started, Text

NO_TEXT = Parsed()
Sink = Callable[[Report], None]


class Reports:
    """Carries reports from the choices' threads into the event loop, many in one hop."""

    def __init__(self, cancel: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[int, Report]] = deque()
        self._filled = asyncio.Event()
        self._cancel = cancel
        # Held here, cancelled in `close`.
        self._waiting = self._loop.create_task(self._wake_on_cancel())

    def sink(self, index: int) -> Sink:
        """The reporting function of one choice; called from its thread."""

        def put(report: Report) -> None:
            was_empty = not self._queue
            self._queue.append((index, report))
            if was_empty:
                self._loop.call_soon_threadsafe(self._filled.set)

        return put

    async def take(self) -> tuple[int, Report] | None:
        """The next report; None once when cancelling begins."""
        while not self._queue:
            self._filled.clear()
            if self._queue:
                break
            await self._filled.wait()
            if not self._queue and self._cancel.is_set():
                return None
        return self._queue.popleft()

    @property
    def cancelled(self) -> bool:
        """The request is to be stopped."""
        return self._cancel.is_set()

    def close(self) -> None:
        """Nobody takes any more."""
        self._waiting.cancel()

    async def _wake_on_cancel(self) -> None:
        await self._cancel.wait()
        self._filled.set()


class Fold:
    """Turns the reports of all choices into the events of one answer."""

    def __init__(self, choices: list[LlamaChoice], seed: int, *, echoed: bool = False) -> None:
        """`echoed`: `Started` was sent before, and what is in the cache was computed for us."""
        self._choices = choices
        self._echoed = echoed
        self._seed = seed
        self._moves: dict[int, Moved] = {}
        self._reasons: dict[int, FinishReason] = {}
        self._stopped_at: dict[int, str | None] = {}
        self._ended = 0
        self._started = False

    @property
    def counted(self) -> bool:
        """A prompt's turn has come."""
        return self._started

    @property
    def over(self) -> bool:
        """All choices have ended."""
        return self._ended == len(self._choices)

    def stop(self) -> None:
        """Cancel all choices; they end within one step."""
        for choice in self._choices:
            choice.cancel.set()

    def take(self, index: int, report: Report) -> Event | None:
        """The event that a report makes, if any. Raises what a choice failed with."""
        match report:
            case Counted():
                first, self._started = not self._started, True
                if not first or self._echoed:
                    return None
                return Started(report.prompt_tokens, report.max_tokens)
            case Moved():
                self._moves[index] = report
                parsed, usage = report.parsed, self._usage()
                if parsed == NO_TEXT and not report.tokens:
                    return Progress(usage)
                return Text(
                    index, parsed.text, report.tokens, usage, parsed.reasoning, parsed.calls
                )
            case Ended():
                self._ended += 1
                if report.error is not None:
                    raise report.error
                if report.reason is not None:
                    self._reasons[index] = report.reason
                    self._stopped_at[index] = report.stopped_at
                return None

    def last(self) -> Done | Stopped:
        """The closing event."""
        if len(self._reasons) < len(self._choices):
            return Stopped(self._usage())
        reasons: tuple[FinishReason, ...] = tuple(
            self._reasons[index] for index in range(len(self._choices))
        )
        stopped_at = tuple(self._stopped_at[index] for index in range(len(self._choices)))
        return Done(reasons, self._usage(), self._seed, stopped_at)

    def _usage(self) -> Usage:
        """The prompt counts once, output adds up."""
        if not self._moves:
            return NOTHING
        furthest = max(self._moves.values(), key=lambda move: move.processed)
        cached = 0 if self._echoed else min(furthest.cached, furthest.processed)
        output = sum(move.output for move in self._moves.values())
        thought = sum(move.thought for move in self._moves.values())
        return Usage(furthest.processed, cached, output, reasoning_tokens=thought)


async def events(reports: Reports, fold: Fold) -> AsyncGenerator[Event]:
    """All events but the last, until every choice has ended or a cancel needs no waiting."""
    while not fold.over:
        taken = await reports.take()
        if reports.cancelled:
            fold.stop()
            if not fold.counted:
                # llama.cpp says nothing before the prompt's turn has come, which may be after a
                # neighbour's long prompt. Nothing was computed; it will stop at its first word.
                return
        if taken is None:
            continue
        event = fold.take(*taken)
        if event is not None:
            yield event
