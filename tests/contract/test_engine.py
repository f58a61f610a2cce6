"""What every engine guarantees; new engines add a line to ENGINES."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.catalog.card import ModelCard
from inferd.engines.base import Engine, Resources
from inferd.engines.registry import engine_class
from inferd.errors import BadRequest, ContextLengthExceeded
from inferd.tasks.base import Progress, Stopped
from inferd.tasks.every import Event
from inferd.tasks.text_generation import (
    ChatPrompt,
    Done,
    Message,
    Sampling,
    Started,
    Text,
    TextGenerationRequest,
    TextPrompt,
)
from tests.gateway import echo_card
from tests.weights import smollm2_cut_card, smollm2_cut_path

ENGINES = ["echo", pytest.param("xllamacpp", marks=pytest.mark.engine)]
CONTEXT = 2048
"""Longer than several of the largest steps, so that a cancel in the prefill finds it unfinished."""
GREEDY = Sampling(temperature=0)


class Loaded(msgspec.Struct):
    engine: Engine
    card: ModelCard


@pytest.fixture(params=ENGINES)
async def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Loaded]:
    if request.param == "echo":
        card = echo_card(slots=4, context_length=CONTEXT)
        files: dict[str, str] = {}
    else:
        card = msgspec.structs.replace(smollm2_cut_card(), slots=4, context_length=CONTEXT)
        files = {"model": str(smollm2_cut_path())}
    engine = engine_class(card.engine)()
    resources = Resources(files=files, threads=2, runtime_dir=str(tmp_path))
    features = await asyncio.to_thread(engine.load, card, resources)
    assert (features.slots, features.context_length) == (4, CONTEXT)
    yield Loaded(engine, card)
    await engine.close()


def ask(text: str = "one two three four five", **fields: Any) -> TextGenerationRequest:
    plain = TextGenerationRequest("m", ChatPrompt((Message("user", text),)), sampling=GREEDY)
    return msgspec.structs.replace(plain, **fields)


async def events_of(
    engine: Engine, request: TextGenerationRequest, *, stop_after: int | None = None
) -> list[Event]:
    cancel = asyncio.Event()
    seen: list[Event] = []
    async with aclosing(engine.run(request, cancel)) as events:
        async for event in events:
            seen.append(event)
            if stop_after is not None and len(seen) >= stop_after:
                cancel.set()
    return seen


def text_of(events: list[Event], choice: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Text) and e.choice == choice)


async def test_the_life_of_an_answer(loaded: Loaded) -> None:
    seen = await events_of(loaded.engine, ask(max_tokens=5))
    assert isinstance(seen[0], Started)
    assert isinstance(seen[-1], Done)
    usages = [e.usage for e in seen if isinstance(e, Progress | Text | Done)]
    for before, after in itertools.pairwise(usages):
        assert before.input_tokens <= after.input_tokens
        assert before.output_tokens <= after.output_tokens
    last = seen[-1].usage
    assert last.input_tokens == seen[0].prompt_tokens
    assert 0 < last.output_tokens <= 5
    assert text_of(seen)


async def test_every_output_token_is_reported(loaded: Loaded) -> None:
    seen = await events_of(loaded.engine, ask(max_tokens=5))
    reported = [token for e in seen if isinstance(e, Text) for token in e.tokens]
    assert isinstance(seen[-1], Done)
    # The end token has no text and may come without an event of its own.
    assert seen[-1].usage.output_tokens - len(reported) in (0, 1)
    assert any(token.id is not None and token.logprob is not None for token in reported)


async def test_max_tokens_ends_with_length(loaded: Loaded) -> None:
    seen = await events_of(loaded.engine, ask(max_tokens=2))
    assert isinstance(seen[-1], Done)
    assert seen[-1].reasons == ("length",)
    assert seen[-1].usage.output_tokens == 2


async def test_greedy_answers_repeat(loaded: Loaded) -> None:
    first, again = [await events_of(loaded.engine, ask(max_tokens=8)) for _ in range(2)]
    assert text_of(first) == text_of(again)


async def test_a_stop_string_is_not_shown_and_names_itself(loaded: Loaded) -> None:
    whole = text_of(await events_of(loaded.engine, ask(max_tokens=12)))
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    seen = await events_of(loaded.engine, ask(max_tokens=12, stop=(stop,)))
    assert text_of(seen) == whole.partition(stop)[0]
    assert isinstance(seen[-1], Done)
    assert seen[-1].reasons == ("stop_sequence",)


async def test_n_choices_count_the_prompt_once(loaded: Loaded) -> None:
    one = await events_of(loaded.engine, ask(max_tokens=3))
    three = await events_of(loaded.engine, ask(max_tokens=3, n=3))
    assert isinstance(one[-1], Done)
    assert isinstance(three[-1], Done)
    assert len(three[-1].reasons) == 3
    assert three[-1].usage.input_tokens == one[-1].usage.input_tokens
    assert three[-1].usage.output_tokens == 3 * one[-1].usage.output_tokens
    assert all(text_of(three, choice) for choice in range(3))


@pytest.mark.parametrize(
    "wish", [{"max_tokens": CONTEXT}, {"prompt": TextPrompt("word " * (CONTEXT + 50))}]
)
async def test_over_the_context_is_refused_before_anything_is_computed(
    loaded: Loaded, wish: dict[str, object]
) -> None:
    with pytest.raises(ContextLengthExceeded, match=str(CONTEXT)):
        await events_of(loaded.engine, msgspec.structs.replace(ask(), **wish))
    assert isinstance((await events_of(loaded.engine, ask(max_tokens=1)))[-1], Done)


async def test_without_max_tokens_the_rest_of_the_context_is_the_budget(loaded: Loaded) -> None:
    seen = await events_of(loaded.engine, ask(), stop_after=1)
    assert isinstance(seen[0], Started)
    assert seen[0].prompt_tokens + seen[0].max_tokens == CONTEXT


async def test_cancelling_in_prefill_stops_within_a_step(loaded: Loaded) -> None:
    seen = await events_of(
        loaded.engine, ask(prompt=TextPrompt("word " * (CONTEXT - 60))), stop_after=1
    )
    assert isinstance(seen[-1], Stopped)
    assert isinstance(seen[0], Started)
    assert seen[-1].usage.input_tokens < seen[0].prompt_tokens
    assert seen[-1].usage.output_tokens == 0


async def test_cancelling_in_decode_counts_what_was_made(loaded: Loaded) -> None:
    request = ask("w " * 100, max_tokens=200)
    cancel, texts = asyncio.Event(), 0
    seen: list[Event] = []
    async with aclosing(loaded.engine.run(request, cancel)) as events:
        async for event in events:
            seen.append(event)
            texts += isinstance(event, Text)
            if texts == 5:
                cancel.set()
    assert isinstance(seen[-1], Stopped)
    assert 5 <= seen[-1].usage.output_tokens < 20


async def test_closing_the_iterator_frees_the_slots(loaded: Loaded) -> None:
    for _ in range(3):
        running = [
            loaded.engine.run(ask("w " * 50, max_tokens=200), asyncio.Event()) for _ in range(4)
        ]
        for events in running:
            await anext(events)
        for events in running:
            await events.aclose()
    assert isinstance((await events_of(loaded.engine, ask(max_tokens=1)))[-1], Done)


async def test_as_many_as_there_are_slots_run_at_once(loaded: Loaded) -> None:
    answers = await asyncio.gather(
        *(events_of(loaded.engine, ask(f"number {n} please", max_tokens=6)) for n in range(4))
    )
    assert all(isinstance(seen[-1], Done) for seen in answers)


@pytest.mark.engine
class TestLlama:
    """What only the real engine shows."""

    @pytest.fixture
    def loaded_llama(self, loaded: Loaded) -> Engine:
        if loaded.card.engine != "xllamacpp":
            pytest.skip("of llama.cpp only")
        return loaded.engine

    async def test_a_prefix_is_reused_within_a_scope_only(self, loaded_llama: Engine) -> None:
        async def cached(scope: str) -> int:
            seen = await events_of(
                loaded_llama,
                ask("same words again and again " * 6, max_tokens=1, cache_scope=scope),
            )
            assert isinstance(seen[-1], Done)
            return seen[-1].usage.cached_tokens

        assert await cached("a") == 0
        assert await cached("a") > 20
        assert await cached("b") == 0
        assert await cached("b") > 20

    async def test_an_empty_prompt_is_refused(self, loaded_llama: Engine) -> None:
        with pytest.raises(BadRequest, match="empty"):
            await events_of(loaded_llama, ask(prompt=TextPrompt("")))

    @pytest.mark.parametrize(
        "changed",
        [
            {"temperature": 1.5},
            {"repetition_penalty": 1.8},
            {"presence_penalty": 2.0},
            {"frequency_penalty": 2.0},
        ],
    )
    async def test_a_sampling_field_has_its_effect(
        self, loaded_llama: Engine, changed: dict[str, float]
    ) -> None:
        plain = await events_of(loaded_llama, ask(max_tokens=40))
        sampling = msgspec.structs.replace(GREEDY, seed=1, **changed)
        other = await events_of(loaded_llama, ask(max_tokens=40, sampling=sampling))
        assert text_of(plain) != text_of(other)

    @pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
    async def test_a_filter_that_leaves_one_token_is_greedy(
        self, loaded_llama: Engine, narrow: dict[str, float]
    ) -> None:
        plain = await events_of(loaded_llama, ask(max_tokens=12))
        sampling = msgspec.convert({"temperature": 1.0, "seed": 5, **narrow}, Sampling)
        other = await events_of(loaded_llama, ask(max_tokens=12, sampling=sampling))
        assert text_of(plain) == text_of(other)

    async def test_a_seed_repeats_and_is_reported(self, loaded_llama: Engine) -> None:
        hot = Sampling(temperature=1.2, seed=11)
        first, again = [
            await events_of(loaded_llama, ask(max_tokens=12, sampling=hot)) for _ in range(2)
        ]
        assert text_of(first) == text_of(again)
        assert isinstance(first[-1], Done)
        assert first[-1].seed == 11

    async def test_no_port_is_opened(self, loaded_llama: Engine) -> None:
        assert loaded_llama is not None
        listening = 0
        for family in ("tcp", "tcp6"):
            for line in Path(f"/proc/{'self'}/net/{family}").read_text().splitlines()[1:]:
                inode, state = line.split()[9], line.split()[3]
                links = [
                    str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink()
                ]
                listening += state == "0A" and f"socket:[{inode}]" in links
        assert listening == 0
