"""Embeddings and reranking through clients, against the packaged MiniLM and judge."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clients import fixed_host
from tests.clients.support import openai_base, package
from tests.clients.test_node import installed
from tests.process import TOKEN, InferdProcess, serving
from tests.weights import local_card

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
JUDGE = "inferd/smollm2-reranker"
TEXTS = ["rain falls", "a red bicycle"]
SCRIPTS = Path(__file__).parent / "scripts"

__all__ = ["installed"]

# The packages complain about each other.
pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
]

Vectors = list[list[float]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    folder = tmp_path_factory.mktemp("embeddings")
    async with serving(folder, local_card(MODEL), local_card(JUDGE)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vectors(server: InferdProcess) -> Vectors:
    """What the server says without any client between."""
    async with server.client() as client:
        answer = await client.post(f"/v1/inference/{MODEL}", json={"inputs": TEXTS})
    told: Vectors = answer.json()["embeddings"]
    return told


def same(ours: Any, theirs: Any) -> bool:
    close: Any = [pytest.approx(vector, abs=1e-4) for vector in ours]
    return [list(vector) for vector in theirs] == close


async def test_openai_for_python(server: InferdProcess, vectors: Vectors) -> None:
    openai = package("openai")
    client = openai.AsyncOpenAI(api_key=TOKEN, base_url=openai_base(server), max_retries=0)
    async with client:
        # Without a format the client asks for base64 and unpacks it.
        packed = await client.embeddings.create(model=MODEL, input=TEXTS)
        plain = await client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
        cut = await client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=64)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model=MODEL, input="so it goes " * 300)
    assert same(vectors, [one.embedding for one in packed.data])
    assert same(vectors, [one.embedding for one in plain.data])
    assert len(cut.data[0].embedding) == 64
    assert packed.usage.prompt_tokens == plain.usage.total_tokens > 0
    assert refused.value.param == "input"


async def test_langchain_openai(server: InferdProcess, vectors: Vectors) -> None:
    """Told to send texts: by default it sends token ids of OpenAI's own vocabulary."""
    langchain = package("langchain_openai")
    client = langchain.OpenAIEmbeddings(
        model=MODEL,
        api_key=TOKEN,
        base_url=openai_base(server),
        check_embedding_ctx_length=False,
    )
    assert same(vectors, await client.aembed_documents(TEXTS))
    assert same(vectors[:1], [await client.aembed_query(TEXTS[0])])


async def test_deepinfra_for_python(server: InferdProcess, vectors: Vectors) -> None:
    def ask() -> Any:
        url = f"{server.url}/v1/inference/{MODEL}"
        model = package("deepinfra").Embeddings(url, TOKEN)
        with closing(model.client):
            return model.generate({"inputs": TEXTS})

    answer = await asyncio.to_thread(ask)
    assert same(vectors, answer.embeddings)
    assert answer.input_tokens > 0


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm")
async def test_node(server: InferdProcess, vectors: Vectors, installed: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("node", "deepinfra_embeddings.mjs", server.url, TOKEN, MODEL),
        cwd=installed,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, complaint.decode()
    told = package("json").loads(output)
    assert told["status"] == "succeeded"
    assert told["tokens"] == told["usage"] > 0
    for name in ("native", "many"):
        assert same(vectors, told[name])
    assert same(vectors[:1], [told["one"]])
    assert told["error"][:2] == ["AI_APICallError", 404]


async def of_fixed_host(server: InferdProcess, folder: Path, client: str) -> dict[str, Any]:
    package(client)
    script = SCRIPTS / f"embeddings_of_{client.partition('.')[0]}.py"
    try:
        return await fixed_host.ask(folder, server.url, MODEL, script)
    except fixed_host.Unavailable as missing:
        pytest.skip(str(missing))


async def test_langchain_community(server: InferdProcess, vectors: Vectors, tmp_path: Path) -> None:
    told = await of_fixed_host(server, tmp_path, "langchain_community")
    assert same(vectors, told["documents"])
    assert same(vectors[:1], [told["query"]])
    assert "404" in told["missing"]


async def test_llama_index(server: InferdProcess, vectors: Vectors, tmp_path: Path) -> None:
    told = await of_fixed_host(server, tmp_path, "llama_index.embeddings.deepinfra")
    assert same(vectors, told["documents"])
    assert same([vectors[0]] * 2, [told["query"], told["waited"]])


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    # Without it the import asks the network for prices.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return package("litellm")


async def test_litellm_embeds(server: InferdProcess, vectors: Vectors, litellm: Any) -> None:
    answer = await litellm.aembedding(
        model=f"openai/{MODEL}", input=TEXTS, api_base=openai_base(server), api_key=TOKEN
    )
    assert same(vectors, [one["embedding"] for one in answer.data])
    assert answer.usage.prompt_tokens > 0


async def test_litellm_reranks(server: InferdProcess, litellm: Any) -> None:
    """Its DeepInfra provider asks the native route with the query once for each document."""
    query = "What do I need when it rains?"
    documents = ["A red bicycle.", "You need an umbrella when it rains."]
    answer = await litellm.arerank(
        model=f"deepinfra/{JUDGE}",
        query=query,
        documents=documents,
        api_base=openai_base(server),
        api_key=TOKEN,
    )
    async with server.client() as client:
        body = {"query": query, "documents": documents}
        plain = await client.post(f"/v1/inference/{JUDGE}", json=body)
    told = {one["index"]: one["relevance_score"] for one in answer.results}
    assert [told[0], told[1]] == pytest.approx(plain.json()["scores"], abs=1e-5)
    assert told[1] > told[0]


async def test_litellm_reranks_as_cohere_and_jina(server: InferdProcess, litellm: Any) -> None:
    documents = ["A red bicycle.", "You need an umbrella when it rains."]
    for model, base in (
        (f"cohere/{JUDGE}", server.url),
        (f"jina_ai/{JUDGE}", f"{server.url}/v1"),
    ):
        answer = await litellm.arerank(
            model=model,
            query="What do I need when it rains?",
            documents=documents,
            top_n=1,
            api_base=base,
            api_key=TOKEN,
        )
        ((best),) = answer.results
        assert best["index"] == 1, model


async def test_litellm_cuts_documents_as_cohere(server: InferdProcess, litellm: Any) -> None:
    async def score(**fields: Any) -> float:
        answer = await litellm.arerank(
            model=f"cohere/{JUDGE}",
            query="Why does it rain?",
            documents=["rain water wind snow sun moon"],
            api_base=server.url,
            api_key=TOKEN,
            **fields,
        )
        (only,) = answer.results
        told: float = only["relevance_score"]
        return told

    whole = await score()
    assert await score(max_tokens_per_doc=1000) == pytest.approx(whole, abs=1e-5)
    assert abs(await score(max_tokens_per_doc=3) - whole) > 1e-3
