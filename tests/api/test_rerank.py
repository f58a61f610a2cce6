"""Reranking over the wire, three dialects, with the first layers of the packaged judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from inferd.catalog.card import ModelFile, PathSource
from inferd.catalog.catalog import load_catalog
from inferd.money import usd
from inferd.serving.router import RouterOptions
from tests.gateway import Gateway, Response, gateway
from tests.ledger import entries
from tests.weights import smollm2_cut_path

MODEL = "inferd/smollm2-reranker"
QUERY = "Why does it rain?"
DOCUMENTS = ["Clouds are full of water.", "A bicycle has two wheels.", "Rain, rain, go away."]
ROUTES = ["/v1/rerank", "/v1/openai/rerank", "/v2/rerank"]

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    file = ModelFile("model", "cut.gguf", PathSource(str(smollm2_cut_path())))
    packaged = load_catalog(None).get(MODEL)
    card = msgspec.structs.replace(packaged, files=(file,), context_length=256)
    options = RouterOptions(memory_bytes=1 << 33)
    async with gateway(tmp_path_factory.mktemp("rerank"), card, router_options=options) as running:
        yield running


async def native(gate: Gateway, **body: Any) -> Response:
    return await gate.client.post(f"/v1/inference/{MODEL}", body)


async def cohere(gate: Gateway, path: str = "/v1/rerank", **body: Any) -> Response:
    given = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **body}
    return await gate.client.post(path, given)


async def scores(gate: Gateway, **body: Any) -> list[float]:
    answer = await native(gate, documents=DOCUMENTS, **body)
    assert answer.status == 200, answer.body
    told: list[float] = answer.json()["scores"]
    return told


class Test200:
    async def test_the_native_body(self, gate: Gateway) -> None:
        body = (await native(gate, query=QUERY, documents=DOCUMENTS)).json()
        assert len(body["scores"]) == 3
        assert all(0 <= score <= 1 for score in body["scores"])
        assert body["request_id"].startswith("R")
        status = body["inference_status"]
        assert status["status"] == "succeeded"
        assert status["tokens_input"] == body["input_tokens"] > 0
        assert status["tokens_generated"] == 0
        entry = (await entries(gate))[-1]
        assert (entry.task, entry.input_tokens) == ("reranker", body["input_tokens"])
        assert usd(entry.cost_nanos) == status["cost"] > 0

    async def test_all_spellings_say_the_same(self, gate: Gateway) -> None:
        wanted = await scores(gate, query=QUERY)
        spellings: list[str | list[str]] = [[QUERY], [QUERY] * 3, QUERY]
        for spelled in spellings:
            assert await scores(gate, queries=spelled) == pytest.approx(wanted, abs=1e-5)

    async def test_queries_in_pairs(self, gate: Gateway) -> None:
        other = "What has wheels?"
        mine, theirs = await scores(gate, query=QUERY), await scores(gate, query=other)
        paired: Any = await scores(gate, queries=[QUERY, other, QUERY])
        assert paired == pytest.approx([mine[0], theirs[1], mine[2]], abs=1e-5)

    @pytest.mark.parametrize("path", ROUTES)
    async def test_results_are_sorted(self, gate: Gateway, path: str) -> None:
        wanted = await scores(gate, query=QUERY)
        body = (await cohere(gate, path)).json()
        assert body["model"] == MODEL
        results = body["results"]
        best = sorted(range(3), key=lambda index: -wanted[index])
        assert [one["index"] for one in results] == best
        for one in results:
            assert set(one) == {"index", "relevance_score"}
            index: int = one["index"]
            assert one["relevance_score"] == pytest.approx(wanted[index], abs=1e-5)
        tokens = body["usage"]["prompt_tokens"]
        assert body["usage"]["total_tokens"] == tokens > 0
        assert body["meta"]["billed_units"] == {"input_tokens": tokens}
        assert body["usage"]["estimated_cost"] > 0

    async def test_top_n_and_documents_as_objects(self, gate: Gateway) -> None:
        objects = [{"text": text, "id": 5} for text in DOCUMENTS]
        body = (await cohere(gate, documents=objects, top_n=2, return_documents=True)).json()
        assert len(body["results"]) == 2
        for one in body["results"]:
            assert one["document"] == {"text": DOCUMENTS[one["index"]]}
        assert len((await cohere(gate, top_n=99)).json()["results"]) == 3

    @pytest.mark.parametrize("path", ROUTES)
    async def test_documents_are_cut_to_the_tokens_asked_for(
        self, gate: Gateway, path: str
    ) -> None:
        """In this vocabulary each of these words is one token."""
        documents = ["rain water wind snow sun moon", "rain"]
        whole = (await cohere(gate, path, documents=documents)).json()
        short = (await cohere(gate, path, documents=["rain water wind", "rain"])).json()
        cut = (await cohere(gate, path, documents=documents, max_tokens_per_doc=3)).json()
        assert cut["results"] == short["results"]
        # Three prompts, of which each lost three words.
        tokens = cut["usage"]["prompt_tokens"]
        assert tokens == cut["meta"]["billed_units"]["input_tokens"]
        assert tokens == whole["usage"]["prompt_tokens"] - 9
        assert cut["usage"]["estimated_cost"] < whole["usage"]["estimated_cost"]
        assert (await entries(gate))[-1].input_tokens == tokens

    @pytest.mark.parametrize("path", ROUTES)
    async def test_a_document_over_the_context_is_never_refused(
        self, gate: Gateway, path: str
    ) -> None:
        long = "so it goes " * 2000
        whole = await cohere(gate, path, documents=[long], return_documents=True)
        assert whole.status == 200, whole.body
        assert whole.json()["results"][0]["document"] == {"text": long}
        bounded = await cohere(gate, path, documents=[long], max_tokens_per_doc=10**30)
        assert bounded.status == 200, bounded.body
        assert bounded.json()["usage"] == whole.json()["usage"]


class Test400:
    @pytest.mark.parametrize(
        "body",
        [
            {"documents": DOCUMENTS},
            {"query": QUERY},
            {"query": QUERY, "documents": []},
            {"query": QUERY, "documents": ["a"] * 1025},
            {"query": QUERY, "queries": [QUERY], "documents": DOCUMENTS},
            {"query": "", "documents": DOCUMENTS},
            {"queries": [], "documents": DOCUMENTS},
            {"queries": [QUERY, QUERY], "documents": DOCUMENTS},
            {"queries": [QUERY, "", QUERY], "documents": DOCUMENTS},
            {"query": "so it goes " * 200, "documents": DOCUMENTS},
        ],
    )
    async def test_native(self, gate: Gateway, body: Any) -> None:
        answer = await native(gate, **body)
        assert answer.status in (400, 422), answer.body
        assert "detail" in answer.json()

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"query": ""}, "query"),
            ({"documents": []}, "documents"),
            ({"documents": [5]}, "documents.0"),
            ({"documents": [{"title": "a"}]}, "documents.0.text"),
            ({"top_n": 0}, "top_n"),
            ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
            ({"max_tokens_per_doc": -1}, "max_tokens_per_doc"),
            ({"max_tokens_per_doc": True}, "max_tokens_per_doc"),
            ({"max_tokens_per_doc": "100"}, "max_tokens_per_doc"),
            ({"max_tokens_per_doc": 100.5}, "max_tokens_per_doc"),
            ({"rank_fields": ["title"]}, "rank_fields"),
        ],
    )
    async def test_cohere(self, gate: Gateway, body: Any, param: str) -> None:
        answer = await cohere(gate, **body)
        assert answer.status in (400, 422), answer.body
        assert answer.json()["error"]["param"] == param
