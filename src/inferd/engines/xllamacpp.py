"""llama.cpp in process: GGUF language models on CPU and GPU, through the xllamacpp package.

Rules that measurements made: always stream and ask for progress, or a cancel waits for the end of
the prefill; steps of about 200 ms, or a long prompt stalls its neighbours; every sampling field is
set explicitly, or llama.cpp's own defaults (top_k 40, min_p 0.05 …) leak in; no TCP listener.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.catalog.card import ModelCard
from inferd.catalog.gguf_header import kv_cache_bytes_per_token, read_header
from inferd.engines.base import Features, Request, Resources
from inferd.engines.chat_template import ChatTemplate
from inferd.engines.llama_choice import Chunk, Counted, Ended, LlamaChoice, Moved, Report
from inferd.engines.llama_load import load_server
from inferd.engines.llama_slots import LlamaSlots, Slot
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import NOTHING, Usage
from inferd.tasks.text_generation import (
    ChatPrompt,
    Done,
    Event,
    FinishReason,
    Progress,
    Sampling,
    Started,
    Stopped,
    Text,
)

if TYPE_CHECKING:
    from inferd.engines.llama_choice import LlamaServer

OVERHEAD_BYTES = 150 << 20
"""Python, llama.cpp's code and compute buffers: measured 120 to 180 MB on small models."""

REPEAT_LAST_N = 1 << 20

_SEED_RANDOM = 0xFFFFFFFF
"""llama.cpp takes 32 bits and reads this one as "choose yourself"."""


class XllamacppEngine:
    """One GGUF model."""

    def __init__(self) -> None:
        self._server: LlamaServer | None = None
        self._template = ChatTemplate(None)
        self._bos = ""
        self._slots = LlamaSlots(0)
        self._context_length = 0
        self._threads: ThreadPoolExecutor | None = None
        self._running: set[LlamaChoice] = set()
        self._reaping: set[asyncio.Task[None]] = set()
        """Held here until their threads are done."""
        self._freed = asyncio.Event()

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Check the header, load, probe the step size, warm up."""
        path = resources.path("model")
        header = read_header(path)
        bos, eos = header.bos_text or "", header.eos_text or ""
        adds_bos = header.add_bos
        if adds_bos is None:
            adds_bos = header.text("tokenizer.ggml.model") == "llama"
        self._bos = bos if adds_bos else ""
        self._template = ChatTemplate(header.chat_template, bos_token=bos, eos_token=eos)
        self._context_length = card.context_length
        self._server = load_server(card, resources, path)
        self._slots = LlamaSlots(card.slots)
        self._threads = ThreadPoolExecutor(card.slots, thread_name_prefix="llama")
        return Features(("text-generation",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Compute all choices side by side."""
        if self._server is None or self._threads is None:
            raise EngineFailed("The model is not loaded.")
        prompt = self._prompt(request)
        if not prompt:
            raise BadRequest("The prompt is empty.", param="prompt")
        while self._slots.free < request.n:
            # A request that left before its turn still holds its slot inside llama.cpp.
            if cancel.is_set():
                yield Stopped(NOTHING)
                return
            await self._wait_for_slot(cancel)
        slots = self._slots.take(request.cache_scope, request.n)
        reports = _Reports(cancel)
        seed = _seed(request.sampling.seed)
        choices = [
            self._choice(request, prompt, slot, (seed + index) % _SEED_RANDOM, reports.sink(index))
            for index, slot in enumerate(slots)
        ]
        fold = _Fold(choices, seed)
        loop = asyncio.get_running_loop()
        ends = [loop.run_in_executor(self._threads, c.run, self._server) for c in choices]
        self._running.update(choices)
        try:
            async for event in _events(reports, fold):
                yield event
        finally:
            fold.stop()
            reports.close()
            reaping = self._reap(ends, choices, slots)
            if fold.counted or fold.over:
                await asyncio.wait([reaping])
        # Only now: whoever sees the end may send the next request at once.
        yield fold.last()

    def _reap(
        self, ends: list[asyncio.Future[None]], choices: list[LlamaChoice], slots: list[Slot]
    ) -> asyncio.Task[None]:
        """Wait for the threads in a task of its own; only then are the slots free."""

        async def wait() -> None:
            await asyncio.wait(ends)
            self._running.difference_update(choices)
            self._slots.give_back(slots)
            self._freed.set()

        task = asyncio.get_running_loop().create_task(wait())
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)
        return task

    async def _wait_for_slot(self, cancel: asyncio.Event) -> None:
        self._freed.clear()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._freed, cancel)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def close(self) -> None:
        """Stop everything that runs; the process ends next."""
        for choice in self._running:
            choice.cancel.set()
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown)

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """Weights, key-value cache of all slots, and overhead."""
        path = files.get("model")
        if path is None or not path.exists():
            listed = sum(file.size_bytes for file in card.files)
            return card.memory_bytes or listed + OVERHEAD_BYTES
        per_token = kv_cache_bytes_per_token(read_header(path))
        cache = per_token * card.context_length * card.slots
        if card.kv_cache == "q8_0":
            cache = cache * 34 // 64  # 32 values in 34 bytes instead of 64
        return path.stat().st_size + cache + OVERHEAD_BYTES

    def _prompt(self, request: Request) -> str:
        if not isinstance(request.prompt, ChatPrompt):
            return request.prompt.text
        text = self._template.render(request.prompt.messages)
        # llama.cpp adds the begin token itself; templates write it as well.
        return text.removeprefix(self._bos) if self._bos else text

    def _choice(
        self, request: Request, prompt: str, slot: Slot, seed: int, report: Any
    ) -> LlamaChoice:
        limit = self._context_length if request.max_tokens is None else request.max_tokens
        body: Chunk = {
            **_sampling(request.sampling, seed),
            "prompt": prompt,
            "max_tokens": limit,
            "stream": True,
            "return_progress": True,
            "timings_per_token": True,
            "n_probs": 1,
            "stop": [],
            "id_slot": slot.index,
            "cache_prompt": slot.reuse,
        }
        return LlamaChoice(
            body,
            context_length=self._context_length,
            max_tokens=request.max_tokens,
            stop=request.stop,
            report=report,
        )


class _Reports:
    """Carries reports from the choices' threads into the event loop, many in one hop."""

    def __init__(self, cancel: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[int, Report]] = deque()
        self._filled = asyncio.Event()
        self._cancel = cancel
        # Held here, cancelled in `close`.
        self._waiting = self._loop.create_task(self._wake_on_cancel())

    def sink(self, index: int) -> Any:
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


class _Fold:
    """Turns the reports of all choices into the events of one answer."""

    def __init__(self, choices: list[LlamaChoice], seed: int) -> None:
        self._choices = choices
        self._seed = seed
        self._moves: dict[int, Moved] = {}
        self._reasons: dict[int, FinishReason] = {}
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
                return Started(report.prompt_tokens, report.max_tokens) if first else None
            case Moved():
                self._moves[index] = report
                if report.text or report.tokens:
                    return Text(index, report.text, report.tokens, self._usage())
                return Progress(self._usage())
            case Ended():
                self._ended += 1
                if report.error is not None:
                    raise report.error
                if report.reason is not None:
                    self._reasons[index] = report.reason
                return None

    def last(self) -> Done | Stopped:
        """The closing event."""
        if len(self._reasons) < len(self._choices):
            return Stopped(self._usage())
        reasons: tuple[FinishReason, ...] = tuple(
            self._reasons[index] for index in range(len(self._choices))
        )
        return Done(reasons, self._usage(), self._seed)

    def _usage(self) -> Usage:
        """The prompt counts once, output adds up."""
        if not self._moves:
            return NOTHING
        furthest = max(self._moves.values(), key=lambda move: move.processed)
        cached = min(furthest.cached, furthest.processed)
        output = sum(move.output for move in self._moves.values())
        return Usage(furthest.processed, cached, output)


async def _events(reports: _Reports, fold: _Fold) -> AsyncGenerator[Event]:
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


def _seed(asked: int | None) -> int:
    if asked is None:
        return secrets.randbelow(_SEED_RANDOM)
    return asked % _SEED_RANDOM


def _sampling(sampling: Sampling, seed: int) -> Chunk:
    """Every field that llama.cpp would otherwise fill with a default of its own."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        # The whole context, as others count it; llama.cpp would look at 64 tokens.
        "repeat_last_n": REPEAT_LAST_N,
        "seed": seed,
        "typical_p": 1.0,
        "top_n_sigma": -1.0,
        "xtc_probability": 0.0,
        "dry_multiplier": 0.0,
        "dynatemp_range": 0.0,
        "mirostat": 0,
    }
