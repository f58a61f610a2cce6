"""What embedding engines guarantee, with real weights: order, neighbours, one failing alone."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from inferd.catalog.card import ModelCard
from inferd.catalog.catalog import load_catalog
from inferd.engines.base import Engine, Resources
from inferd.engines.registry import engine_class
from inferd.errors import BadRequest, ContextLengthExceeded, InferdError
from inferd.tasks.base import Counted, Stopped
from inferd.tasks.embeddings import Embedded, EmbeddingsRequest
from inferd.tasks.every import Event
from tests.weights import fetched, smollm2_cut_path

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ("Rain falls.", "A bicycle has two wheels and a bell, and it is red.", "x", "Rain falls.")
NATIVE = (384, 576)
PREFIXES: dict[str, Any] = {
    "query_prefix": "query: ",
    "instruction": "Instruct: {instruction}\nQuery:{text}",
}

pytestmark = pytest.mark.engine

Matrix = NDArray[np.float32]


def minilm_card() -> ModelCard:
    return load_catalog(None).get(MINILM)


def card_and_files(name: str) -> tuple[ModelCard, dict[str, Path]]:
    card = minilm_card()
    if name == "onnx_encoder":
        options = {**card.options, **PREFIXES}
        return msgspec.structs.replace(card, options=options), fetched(card)
    engine, pooling = name.split()
    options = {"pooling": pooling, **PREFIXES}
    card = msgspec.structs.replace(card, engine=engine, options=options, context_length=256)
    return card, {"model": smollm2_cut_path()}


@pytest.fixture(params=["onnx_encoder", "llama_embedder mean", "llama_embedder last"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Engine]:
    card, files = card_and_files(request.param)
    running = engine_class(card.engine)()
    told = {role: str(path) for role, path in files.items()}
    await asyncio.to_thread(running.load, card, Resources(told, 2, str(tmp_path)))
    yield running
    await running.close()


@pytest.fixture
async def minilm(tmp_path: Path) -> AsyncGenerator[Engine]:
    running = engine_class("onnx_encoder")()
    told = {role: str(path) for role, path in fetched(minilm_card()).items()}
    await asyncio.to_thread(running.load, minilm_card(), Resources(told, 2, str(tmp_path)))
    yield running
    await running.close()


async def told(engine: Engine, *inputs: Any, **fields: Any) -> list[Event]:
    request = EmbeddingsRequest("m", inputs, **fields)
    return [event async for event in engine.run(request, asyncio.Event())]


async def vectors(engine: Engine, *inputs: Any, **fields: Any) -> Matrix:
    last = (await told(engine, *inputs, **fields))[-1]
    assert isinstance(last, Embedded)
    return np.frombuffer(last.vectors, "<f4").reshape(len(inputs), last.dimensions)


def cosines(a: Matrix, b: Matrix) -> Matrix:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(1) / lengths, np.float32)


async def test_a_request_is_counted_then_embedded(engine: Engine) -> None:
    events = await told(engine, *TEXTS)
    counted, last = events[0], events[-1]
    assert isinstance(counted, Counted)
    assert isinstance(last, Embedded)
    assert last.dimensions in NATIVE
    assert last.usage == counted.most
    assert last.usage.input_tokens >= 12
    assert len(last.vectors) == len(TEXTS) * last.dimensions * 4


async def test_order_is_kept_and_neighbours_do_not_matter(engine: Engine) -> None:
    together = await vectors(engine, *TEXTS)
    alone = np.concatenate([await vectors(engine, text) for text in TEXTS])
    assert float(cosines(together, alone).min()) > 0.9999
    assert float(cosines(together[:1], together[3:]).min()) > 0.9999
    assert float(cosines(together[:1], together[1:2]).max()) < 0.99
    crowd = await asyncio.gather(*(vectors(engine, text) for text in TEXTS * 4))
    assert float(cosines(np.concatenate(crowd), np.tile(together, (4, 1))).min()) > 0.9999


async def test_vectors_are_cut_padded_and_scaled(engine: Engine) -> None:
    native = await vectors(engine, *TEXTS)
    width = native.shape[1]
    assert np.linalg.norm(native, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    cut = await vectors(engine, *TEXTS, dimensions=64)
    scaled = native[:, :64] / np.linalg.norm(native[:, :64], axis=1, keepdims=True)
    assert cut == pytest.approx(scaled, abs=1e-3)
    padded = await vectors(engine, *TEXTS, dimensions=width + 100)
    assert padded[:, :width] == pytest.approx(native, abs=1e-3)
    assert not padded[:, width:].any()
    raw = await vectors(engine, *TEXTS, normalize=False)
    assert float(np.abs(np.linalg.norm(raw, axis=1) - 1).min()) > 0.01
    assert float(cosines(raw, native).min()) > 0.9999


async def test_prefixes_are_part_of_the_text(engine: Engine) -> None:
    typed = await vectors(engine, "rain", input_type="query")
    assert float(cosines(typed, await vectors(engine, "query: rain"))[0]) > 0.9999
    instructed = await vectors(engine, "{rain}", instruction="Find {text}.")
    written = await vectors(engine, "Instruct: Find {text}.\nQuery:{rain}")
    assert float(cosines(instructed, written)[0]) > 0.9999
    plain = await vectors(engine, "rain", input_type="passage")
    assert float(cosines(plain, await vectors(engine, "rain"))[0]) > 0.9999


@pytest.mark.parametrize("bad", [(10**9,), (-1, 5), ()])
async def test_token_ids_outside_of_the_vocabulary_are_refused(
    engine: Engine, bad: tuple[int, ...]
) -> None:
    with pytest.raises(BadRequest, match="tokens"):
        await vectors(engine, "good", bad)


async def test_a_text_over_the_context_is_refused(engine: Engine) -> None:
    with pytest.raises(ContextLengthExceeded, match="Text 1 has"):
        await vectors(engine, "good", "so it goes " * 400)


async def test_who_asks_for_something_bad_fails_alone(engine: Engine) -> None:
    async def ask(*inputs: Any) -> Matrix | InferdError:
        try:
            return await vectors(engine, *inputs)
        except InferdError as error:
            return error

    asked = [ask("so it goes " * 400), *(ask(text) for text in TEXTS), ask((10**9,))]
    results = await asyncio.gather(*asked)
    assert isinstance(results[0], ContextLengthExceeded)
    assert isinstance(results[-1], BadRequest)
    assert all(isinstance(result, np.ndarray) for result in results[1:-1])


async def test_a_cancel_stops_before_the_next_step(engine: Engine) -> None:
    cancel = asyncio.Event()
    texts = tuple("so it goes " * (8 + index % 40) for index in range(300))
    seen: list[Event] = []
    async for event in engine.run(EmbeddingsRequest("m", texts), cancel):
        seen.append(event)
        cancel.set()
    counted, last = seen[0], seen[-1]
    assert isinstance(counted, Counted)
    assert isinstance(last, Stopped)
    assert last.usage.input_tokens < counted.most.input_tokens


async def test_token_ids_are_the_text_that_they_spell(minilm: Engine) -> None:
    # [CLS] hello world [SEP] in BERT's vocabulary.
    ids = (101, 7592, 2088, 102)
    same = cosines(await vectors(minilm, ids), await vectors(minilm, "hello world"))
    assert float(same[0]) > 0.9999


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


async def test_256_calls_cost_little_more_than_one(minilm: Engine) -> None:
    """CPU time of this process, engine and all; at most 1.25 times."""
    texts = [f"Case {index}: {'a word or two ' * (2 + index % 9)}." for index in range(256)]

    async def one_call() -> None:
        await vectors(minilm, *texts)

    async def many_calls() -> None:
        await asyncio.gather(*(vectors(minilm, text) for text in texts))

    await many_calls()
    costs: dict[str, list[float]] = {"one": [], "many": []}
    for _ in range(3):
        for name, call in (("one", one_call), ("many", many_calls)):
            before = cpu_seconds()
            await call()
            costs[name].append(cpu_seconds() - before)
    assert min(costs["many"]) <= 1.25 * min(costs["one"]), costs


async def test_a_single_text_does_not_wait_for_a_long_list(minilm: Engine) -> None:
    long = tuple("so it goes " * 40 for _ in range(400))
    listed = asyncio.ensure_future(vectors(minilm, *long))
    await asyncio.sleep(0)
    began = time.perf_counter()
    await vectors(minilm, "short")
    waited = time.perf_counter() - began
    assert not listed.done()
    await listed
    assert waited < (time.perf_counter() - began) / 4
