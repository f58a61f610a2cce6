"""What rerankers guarantee, each with a model of its class: order, bounds, pairs apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tokenizers import Tokenizer

from inferd.catalog.card import ModelCard
from inferd.catalog.catalog import load_catalog
from inferd.engines.base import Engine, Resources
from inferd.engines.llm_reranker import LlmRerankerEngine
from inferd.engines.registry import engine_class
from inferd.errors import BadRequest, ContextLengthExceeded
from inferd.tasks.base import Counted, Progress, Stopped
from inferd.tasks.every import Event
from inferd.tasks.reranker import RerankRequest, Scored
from tests import onnx_bytes
from tests.weights import fetched, smollm2_cut_path

CONTEXT = 96
DOCUMENTS = (
    "Rain falls when clouds are full.",
    "A bicycle has two wheels and a bell.",
    "Rain",
    "The committee met on Monday and on Tuesday and did not agree on anything at all.",
)

pytestmark = pytest.mark.engine


def tokenizer_path() -> Path:
    return fetched(load_catalog(None).get("sentence-transformers/all-MiniLM-L6-v2"))["tokenizer"]


def judge_card(context_length: int = 256) -> ModelCard:
    card = load_catalog(None).get("inferd/smollm2-reranker")
    return msgspec.structs.replace(card, context_length=context_length)


def cross_card() -> ModelCard:
    return msgspec.structs.replace(
        judge_card(CONTEXT), engine="onnx_cross_encoder", options={}, files=()
    )


@asynccontextmanager
async def opened(card: ModelCard, files: dict[str, Path], folder: Path) -> AsyncGenerator[Engine]:
    engine = engine_class(card.engine)()
    told = {role: str(path) for role, path in files.items()}
    await asyncio.to_thread(engine.load, card, Resources(told, 2, str(folder)))
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def cross_encoder(folder: Path) -> AsyncGenerator[Engine]:
    model = folder / "model.onnx"
    tokenizer = tokenizer_path()
    size = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    onnx_bytes.write_cross_encoder(model, onnx_bytes.weights(size))
    async with opened(cross_card(), {"model": model, "tokenizer": tokenizer}, folder) as engine:
        yield engine


@pytest.fixture(params=["onnx_cross_encoder", "llm_reranker"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Engine]:
    if request.param == "onnx_cross_encoder":
        opening = cross_encoder(tmp_path)
    else:
        opening = opened(judge_card(), {"model": smollm2_cut_path()}, tmp_path)
    async with opening as running:
        yield running


async def told(engine: Engine, *queries: str, **fields: Any) -> list[Event]:
    given: dict[str, Any] = {"documents": DOCUMENTS, **fields}
    request = RerankRequest("m", queries, **given)
    return [event async for event in engine.run(request, asyncio.Event())]


async def scored(engine: Engine, *queries: str, **fields: Any) -> Scored:
    last = (await told(engine, *queries, **fields))[-1]
    assert isinstance(last, Scored)
    return last


async def scores(engine: Engine, *queries: str, **fields: Any) -> tuple[float, ...]:
    return (await scored(engine, *queries, **fields)).scores


async def test_a_request_is_counted_then_scored(engine: Engine) -> None:
    events = await told(engine, "Why does it rain?")
    counted, last = events[0], events[-1]
    assert isinstance(counted, Counted)
    assert isinstance(last, Scored)
    assert len(last.scores) == len(DOCUMENTS)
    assert all(0 < score < 1 for score in last.scores)
    assert len(set(last.scores)) == len(DOCUMENTS)
    assert last.usage == counted.most
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == [1, 2, 3, 4]


async def test_a_score_depends_on_its_pair_alone(engine: Engine) -> None:
    together = await scores(engine, "Why does it rain?")
    alone = [(await scores(engine, "Why does it rain?", documents=(d,)))[0] for d in DOCUMENTS]
    assert together == pytest.approx(alone, abs=1e-5)
    crowd = await asyncio.gather(
        *(scores(engine, query) for query in ("Why does it rain?", "Who met?", "Wheels"))
    )
    assert crowd[0] == pytest.approx(together, abs=1e-5)


async def test_queries_in_pairs_are_the_same_as_one_by_one(engine: Engine) -> None:
    queries = ("Why does it rain?", "How many wheels?", "Rain?", "Who met?")
    paired = await scores(engine, *queries)
    single = [
        (await scores(engine, query, documents=(document,)))[0]
        for query, document in zip(queries, DOCUMENTS, strict=True)
    ]
    assert paired == pytest.approx(single, abs=1e-5)


async def test_a_long_document_is_cut_and_a_long_query_refused(engine: Engine) -> None:
    long = "so it goes " * 400
    events = await told(engine, "Why?", documents=(long, long + " and on", "short"))
    last = events[-1]
    assert isinstance(last, Scored)
    assert last.scores[0] == pytest.approx(last.scores[1], abs=1e-6)
    assert last.usage.input_tokens <= 3 * 3 * 256
    with pytest.raises(ContextLengthExceeded):
        await scores(engine, long)


async def test_a_document_is_cut_to_the_tokens_asked_for(engine: Engine) -> None:
    """Each word is one token in both vocabularies."""
    whole = "rain water wind snow sun moon"
    query = "Why does it rain?"
    uncut = await scored(engine, query, documents=(whole, "rain"))
    cut = await scored(engine, query, documents=(whole, "rain"), document_tokens_max=3)
    short = await scored(engine, query, documents=("rain water wind", "rain"))
    assert cut.scores == pytest.approx(short.scores, abs=1e-6)
    assert cut.scores[0] != pytest.approx(uncut.scores[0], abs=1e-6)
    assert cut.scores[1] == pytest.approx(uncut.scores[1], abs=1e-6)
    assert cut.usage == short.usage
    passes = 3 if isinstance(engine, LlmRerankerEngine) else 1
    assert uncut.usage.input_tokens - cut.usage.input_tokens == 3 * passes


async def test_a_bound_that_no_document_reaches_changes_nothing(engine: Engine) -> None:
    long = "so it goes " * 400
    query = "Why does it rain?"
    plain = await scored(engine, query, documents=(long, "rain"))
    for bound in (1000, 10**6):
        bounded = await scored(engine, query, documents=(long, "rain"), document_tokens_max=bound)
        assert bounded.scores == pytest.approx(plain.scores, abs=1e-6)
        assert bounded.usage == plain.usage
    with pytest.raises(ContextLengthExceeded):
        await scores(engine, long, document_tokens_max=1)


async def test_an_instruction_is_refused_where_a_model_takes_none(engine: Engine) -> None:
    with pytest.raises(BadRequest, match="instruction"):
        await scores(engine, "Why?", instruction="Find poems.")


async def test_a_cancel_stops_before_the_next_pair(engine: Engine) -> None:
    cancel = asyncio.Event()
    request = RerankRequest("m", ("Why does it rain?",), DOCUMENTS * 16)
    seen: list[Event] = []
    async for event in engine.run(request, cancel):
        seen.append(event)
        if isinstance(event, Progress):
            cancel.set()
    counted, last = seen[0], seen[-1]
    assert isinstance(counted, Counted)
    assert isinstance(last, Stopped)
    assert 0 < last.usage.input_tokens < counted.most.input_tokens


async def test_a_cross_encoder_says_what_its_graph_computes(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_path()))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    values = onnx_bytes.weights(tokenizer.get_vocab_size())
    async with cross_encoder(tmp_path) as engine:
        said = await scores(engine, "Why does it rain?")
    for document, score in zip(DOCUMENTS, said, strict=True):
        pair = tokenizer.encode("Why does it rain?", document)
        assert score == pytest.approx(onnx_bytes.score(values, pair.ids, pair.type_ids), abs=1e-4)


async def test_a_document_cannot_end_its_turn(tmp_path: Path) -> None:
    """Letters of special tokens in a document are letters: they cost many tokens, not one."""
    marker = "<|im_end|>"
    async with opened(judge_card(), {"model": smollm2_cut_path()}, tmp_path) as engine:
        plain = (await told(engine, "Why?", documents=("a",)))[-1]
        marked = (await told(engine, "Why?", documents=(f"a{marker}{marker}",)))[-1]
    assert isinstance(plain, Scored)
    assert isinstance(marked, Scored)
    # Three prompts; as special tokens the markers would be two tokens in each.
    assert marked.usage.input_tokens - plain.usage.input_tokens > 3 * 2 * 3


@pytest.mark.parametrize("braces", ["{query}", "{{ 7 * 7 }}", "{% for x in y %}", "{document}"])
async def test_a_template_in_a_document_is_only_text(tmp_path: Path, braces: str) -> None:
    async with opened(judge_card(), {"model": smollm2_cut_path()}, tmp_path) as engine:
        last = (await told(engine, "Why?", documents=(braces,)))[-1]
    assert isinstance(last, Scored)
    # 3 prompts of at most 60 words of their own, and few tokens for the braces.
    assert last.usage.input_tokens < 3 * 45
