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
from inferd.catalog.gguf_header import read_header
from inferd.engines.base import Features, Request, Resources
from inferd.engines.chat_template import ChatTemplate
from inferd.engines.llama_choice import Chunk, Counted, Ended, LlamaChoice, Moved, Report
from inferd.engines.llama_load import load_server
from inferd.engines.llama_slots import LlamaSlots
from inferd.errors import EngineFailed
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

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Check the header, load, probe the step size, warm up."""
        path = resources.path("model")
        header = read_header(path)
        bos, eos = header.tokens
        adds_bos = header.metadata.get("tokenizer.ggml.add_bos_token")
        if adds_bos is None:
            adds_bos = header.metadata.get("tokenizer.ggml.model") == "llama"
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
        slots = self._slots.take(request.cache_scope, request.n)
        reports = _Reports(cancel)
        choices: list[LlamaChoice] = []
        seed = _seed(request.sampling.seed)
        for index, slot in enumerate(slots):
            body = {
                **_sampling(request.sampling, (seed + index) % _SEED_RANDOM),
                **self._fixed(prompt, request),
                "id_slot": slot.index,
                "cache_prompt": slot.reuse,
            }
            choices.append(self._choice(body, request, reports.sink(index)))
        loop = asyncio.get_running_loop()
        ends = [loop.run_in_executor(self._threads, c.run, self._server) for c in choices]
        self._running.update(choices)
        try:
            async for event in _fold(reports, choices, seed):
                yield event
        finally:
            for choice in choices:
                choice.cancel.set()
            await asyncio.wait(ends)
            reports.close()
            self._running.difference_update(choices)
            self._slots.give_back(slots)

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
        per_token = read_header(path).kv_cache_bytes_per_token()
        cache = per_token * card.context_length * card.slots
        return path.stat().st_size + cache + OVERHEAD_BYTES

    def _prompt(self, request: Request) -> str:
        if not isinstance(request.prompt, ChatPrompt):
            return request.prompt.text
        text = self._template.render(request.prompt.messages)
        # llama.cpp adds the begin token itself; templates write it as well.
        return text.removeprefix(self._bos) if self._bos else text

    def _fixed(self, prompt: str, request: Request) -> Chunk:
        limit = self._context_length if request.max_tokens is None else request.max_tokens
        return {
            "prompt": prompt,
            "max_tokens": limit,
            "stream": True,
            "return_progress": True,
            "timings_per_token": True,
            "n_probs": 1,
            "stop": [],
        }

    def _choice(self, body: Chunk, request: Request, report: Any) -> LlamaChoice:
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

    def close(self) -> None:
        """Nobody takes any more."""
        self._waiting.cancel()

    async def _wake_on_cancel(self) -> None:
        await self._cancel.wait()
        self._filled.set()


class _Tally:
    """Usage over all choices: the prompt counts once, output adds up."""

    def __init__(self, count: int) -> None:
        self._moves: list[Moved | None] = [None] * count

    def move(self, index: int, moved: Moved) -> Usage:
        self._moves[index] = moved
        return self.usage()

    def usage(self) -> Usage:
        seen = [move for move in self._moves if move is not None]
        if not seen:
            return NOTHING
        furthest = max(seen, key=lambda move: move.processed)
        cached = min(furthest.cached, furthest.processed)
        return Usage(furthest.processed, cached, sum(move.output for move in seen))


async def _fold(reports: _Reports, choices: list[LlamaChoice], seed: int) -> AsyncGenerator[Event]:
    tally = _Tally(len(choices))
    reasons: dict[int, FinishReason] = {}
    ended, stopped, started = 0, False, False
    while ended < len(choices):
        taken = await reports.take()
        if reports._cancel.is_set() and not stopped:
            stopped = True
            for choice in choices:
                choice.cancel.set()
        if taken is None:
            continue
        index, report = taken
        match report:
            case Counted():
                if not started:
                    started = True
                    yield Started(report.prompt_tokens, report.max_tokens)
            case Moved():
                usage = tally.move(index, report)
                if report.text or report.tokens:
                    yield Text(index, report.text, report.tokens, usage)
                else:
                    yield Progress(usage)
            case Ended():
                ended += 1
                if report.error is not None:
                    raise report.error
                if report.reason is not None:
                    reasons[index] = report.reason
    if len(reasons) < len(choices):
        yield Stopped(tally.usage())
    else:
        yield Done(tuple(reasons[i] for i in range(len(choices))), tally.usage(), seed)


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
        "repeat_last_n": -1,
        "seed": seed,
        "typical_p": 1.0,
        "top_n_sigma": -1.0,
        "xtc_probability": 0.0,
        "dry_multiplier": 0.0,
        "dynatemp_range": 0.0,
        "mirostat": 0,
    }
