"""llama.cpp in process: GGUF language models on CPU and GPU, through the xllamacpp package.

Rules that measurements made: always stream and ask for progress, or a cancel waits for the end of
the prefill; steps of about 200 ms, or a long prompt stalls its neighbours; every sampling field is
set explicitly, or llama.cpp's own defaults (top_k 40, min_p 0.05 …) leak in; no TCP listener;
every grammar is checked before, since llama.cpp drops what it cannot use.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from inferd.catalog.card import ModelCard
from inferd.catalog.gguf_header import kv_cache_bytes_per_token, read_header
from inferd.engines import llama_media
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.budget import output_budget
from inferd.engines.llama_choice import ChoiceOptions, Chunk, LlamaChoice
from inferd.engines.llama_echo import PromptScorer, echo_of
from inferd.engines.llama_fold import Fold, Reports, Sink, events
from inferd.engines.llama_load import load_server
from inferd.engines.llama_prompt import LlamaPrompts, Prepared, sampling_fields
from inferd.engines.llama_slots import LlamaSlots, Slot
from inferd.engines.llama_tokens import LlamaTokens
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import NOTHING, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.text_generation import (
    ChatPrompt,
    Detokenized,
    DetokenizeRequest,
    Done,
    Started,
    Text,
    TextGenerationRequest,
    Token,
    Tokenized,
    TokenizeRequest,
    TokenPrompt,
    media_count,
)

if TYPE_CHECKING:
    from inferd.engines.llama_choice import LlamaServer

OVERHEAD_BYTES = 150 << 20
"""Python, llama.cpp's code and compute buffers: measured 120 to 180 MB on small models."""

TOWER_BYTES = 400 << 20
"""Decoded pictures, and the buffers of a tower that sees."""

_SEED_RANDOM = 0xFFFFFFFF
"""llama.cpp takes 32 bits and reads this one as "choose yourself"."""


class _Loaded(msgspec.Struct):
    """What exists once the model is loaded."""

    server: LlamaServer
    prompts: LlamaPrompts
    tokens: LlamaTokens
    threads: ThreadPoolExecutor
    slots: LlamaSlots
    context_length: int
    temperature: float
    """For who names none."""


class XllamacppEngine:
    """One GGUF model."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None
        self._running: set[LlamaChoice] = set()
        self._reaping: set[asyncio.Task[None]] = set()
        """Held here until their threads are done."""
        self._freed = asyncio.Event()

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Check the header, load, probe the step size, warm up."""
        path = resources.path("model")
        sees = "mmproj" in resources.files
        prompts = LlamaPrompts(
            read_header(path),
            card.context_length,
            sight=llama_media.Sight.of(card) if sees else None,
        )
        slots = card.slots + spare_slots(card)
        server, listener = load_server(msgspec.structs.replace(card, slots=slots), resources, path)
        self._loaded = _Loaded(
            server=server,
            prompts=prompts,
            tokens=LlamaTokens(listener, prompts.vocabulary_size),
            threads=ThreadPoolExecutor(slots, thread_name_prefix="llama"),
            slots=LlamaSlots(slots),
            context_length=card.context_length,
            temperature=card.temperature(),
        )
        return Features(("text-generation",), card.slots, card.context_length, spare_slots(card))

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Compute all choices side by side."""
        loaded = self._loaded
        if loaded is None:
            raise EngineFailed("The model is not loaded.")
        if isinstance(request, TokenizeRequest | DetokenizeRequest):
            yield await asyncio.to_thread(_tokenized, loaded, request)
            yield Done((), NOTHING)
            return
        if not isinstance(request, TextGenerationRequest):
            raise unsupported("xllamacpp", request)
        async with aclosing(self._generate(loaded, request, cancel)) as generated:
            async for event in generated:
                yield event

    async def _generate(
        self, loaded: _Loaded, request: TextGenerationRequest, cancel: asyncio.Event
    ) -> AsyncGenerator[Event]:
        prepared = await asyncio.to_thread(loaded.prompts.prepare, request)
        while loaded.slots.free < request.n and not cancel.is_set():
            # A request that left before its turn still holds its slot inside llama.cpp.
            await self._wait_for_slot(cancel)
        if cancel.is_set():
            yield Stopped(NOTHING)
            return
        slots = loaded.slots.take(request.cache_scope, request.n, request.cache_key)
        if request.echo:
            async with aclosing(self._echo(loaded, request, prepared, slots, cancel)) as echoed:
                async for event in echoed:
                    yield event
                    if type(event) is Stopped:
                        return
            slots = [Slot(slots[0].index, reuse=True), *slots[1:]]
        async with aclosing(self._compute(loaded, request, prepared, slots, cancel)) as computed:
            async for event in computed:
                yield event

    async def _compute(
        self,
        loaded: _Loaded,
        request: TextGenerationRequest,
        prepared: Prepared,
        slots: list[Slot],
        cancel: asyncio.Event,
    ) -> AsyncGenerator[Event]:
        reports = Reports(cancel)
        seed = _seed(request.sampling.seed)
        choices = [
            _choice(
                loaded, request, prepared, slot, (seed + index) % _SEED_RANDOM, reports.sink(index)
            )
            for index, slot in enumerate(slots)
        ]
        fold = Fold(choices, seed, echoed=request.echo)
        loop = asyncio.get_running_loop()
        ends = [loop.run_in_executor(loaded.threads, c.run, loaded.server) for c in choices]
        self._running.update(choices)
        try:
            async for event in events(reports, fold):
                yield event
        finally:
            fold.stop()
            reports.close()
            reaping = self._reap(loaded, ends, choices, slots)
            if fold.counted or fold.over:
                await asyncio.wait([reaping])
        # Only now: whoever sees the end may send the next request at once.
        yield fold.last()

    async def _echo(
        self,
        loaded: _Loaded,
        request: TextGenerationRequest,
        prepared: Prepared,
        slots: list[Slot],
        cancel: asyncio.Event,
    ) -> AsyncGenerator[Event]:
        """The prompt as text of each choice, scored if logprobs are asked for."""
        scorer = PromptScorer(loaded.server, slots[0], request.logprobs or 0)
        ends: list[asyncio.Future[Any]] = []
        over = False
        try:
            ids, echo = await asyncio.to_thread(echo_of, loaded.tokens, prepared.prompt)
            yield Started(
                len(ids), output_budget(loaded.context_length, len(ids), request.max_tokens)
            )
            tokens = echo.tokens
            if request.logprobs is not None:
                loop = asyncio.get_running_loop()
                scoring = loop.run_in_executor(loaded.threads, scorer.score, tokens, ids)
                ends.append(scoring)
                tokens = await _unless(cancel, scoring, scorer)
            usage = Usage(input_tokens=scorer.scored)
            for index in range(0 if cancel.is_set() else request.n):
                yield Text(index, echo.text, tokens, usage)
            if cancel.is_set():
                yield Stopped(usage)
            else:
                over = True
        finally:
            scorer.cancel.set()
            if not over:
                self._reap(loaded, ends, [], slots)

    def _reap(
        self,
        loaded: _Loaded,
        ends: Sequence[asyncio.Future[Any]],
        choices: list[LlamaChoice],
        slots: list[Slot],
    ) -> asyncio.Task[None]:
        """Wait for the threads in a task of its own; only then are the slots free."""

        async def wait() -> None:
            if ends:
                await asyncio.wait(ends)
            self._running.difference_update(choices)
            loaded.slots.give_back(slots)
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
        if self._loaded is not None:
            await asyncio.to_thread(self._loaded.threads.shutdown)

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """Weights, key-value cache of all slots, and overhead."""
        path = files.get("model")
        if path is None or not path.exists():
            listed = sum(file.size_bytes for file in card.files)
            return card.memory_bytes or listed + OVERHEAD_BYTES
        tower = files.get("mmproj")
        seeing = tower.stat().st_size + TOWER_BYTES if tower and tower.exists() else 0
        per_token = kv_cache_bytes_per_token(read_header(path))
        cache = per_token * card.context_length * (card.slots + spare_slots(card))
        if card.kv_cache == "q8_0":
            cache = cache * 34 // 64  # 32 values in 34 bytes instead of 64
        return path.stat().st_size + cache + OVERHEAD_BYTES + seeing


def spare_slots(card: ModelCard) -> int:
    """Beyond the card's slots: one, but for a card of a single slot it would double the memory."""
    return 1 if card.slots > 1 else 0


def _tokenized(loaded: _Loaded, request: TokenizeRequest | DetokenizeRequest) -> Event:
    """Tokens of a text, or the text of tokens. Blocks."""
    if isinstance(request, DetokenizeRequest):
        return Detokenized(loaded.tokens.detokenize(request.ids))
    if media_count(request.prompt):
        raise BadRequest("Prompts with images are counted when they run.", param="messages")
    prompt, _ = loaded.prompts.render(request.prompt)
    if isinstance(request.prompt, TokenPrompt):
        loaded.tokens.check(request.prompt.ids, "prompt")
        return Tokenized(request.prompt.ids, (), loaded.context_length)
    assert isinstance(prompt, str), "only token prompts have no text"
    loaded.prompts.check_size(prompt)
    special = request.add_special or isinstance(request.prompt, ChatPrompt)
    pieces = loaded.tokens.tokenize(prompt, add_special=special)
    ids = tuple(id_ for id_, _ in pieces)
    return Tokenized(ids, tuple(text for _, text in pieces), loaded.context_length)


async def _unless(
    cancel: asyncio.Event, scoring: asyncio.Future[tuple[Token, ...]], scorer: PromptScorer
) -> tuple[Token, ...]:
    """The scores; on a cancel, those that there are one step later."""
    leaving = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait([leaving, scoring], return_when=asyncio.FIRST_COMPLETED)
        if cancel.is_set():
            scorer.cancel.set()
        return await scoring
    finally:
        leaving.cancel()


def _choice(
    loaded: _Loaded,
    request: TextGenerationRequest,
    prepared: Prepared,
    slot: Slot,
    seed: int,
    report: Sink,
) -> LlamaChoice:
    limit = loaded.context_length if request.max_tokens is None else request.max_tokens
    body: Chunk = {
        **sampling_fields(request.sampling, loaded.temperature, seed),
        "prompt": prepared.prompt,
        "max_tokens": limit,
        "stream": True,
        "return_progress": True,
        "timings_per_token": True,
        "n_probs": max(1, request.logprobs or 0),
        "logit_bias": [list(pair) for pair in request.logit_bias],
        "ignore_eos": request.ignore_eos,
        "stop": [],
        "id_slot": slot.index,
        "cache_prompt": slot.reuse,
    }
    if prepared.pictures:
        parts = llama_media.content_parts(str(body.pop("prompt")), prepared.pictures)
        body["messages"] = [{"role": "user", "content": parts}]
    if prepared.grammar:
        body["grammar"] = prepared.grammar
    prompt = request.prompt
    tools = isinstance(prompt, ChatPrompt) and prompt.tool_use is not None
    thinks = isinstance(prompt, ChatPrompt) and loaded.prompts.template.thinks
    options = ChoiceOptions(
        context_length=loaded.context_length,
        max_tokens=request.max_tokens,
        stop=request.stop,
        stop_token_ids=frozenset(request.stop_token_ids),
        lists_top=bool(request.logprobs),
        grammar=prepared.grammar,
        parses=tools or thinks,
        thinks=thinks,
        in_thought=prepared.in_thought,
        tools=tools,
    )
    return LlamaChoice(body, options, report)


def _seed(asked: int | None) -> int:
    if asked is None:
        return secrets.randbelow(_SEED_RANDOM)
    return asked % _SEED_RANDOM
