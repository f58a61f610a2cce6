"""What clients of both dialects meet on the wire of a running server."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from inferd.money import usd
from tests.e2e.steps import CHAT, body, card, entry_of
from tests.process import TOKEN, InferdProcess, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPENAI = "/v1/openai/chat/completions"
NATIVE = "/v1/inference/t/echo"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    async with serving(tmp_path_factory.mktemp("wire"), card("t/echo")) as running:
        yield running


def bare(server: InferdProcess, **headers: str) -> httpx.AsyncClient:
    """A client with no credential but what is in `headers`."""
    return httpx.AsyncClient(base_url=server.url, headers=headers)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("authorization", f"Bearer {TOKEN}"),
        ("authorization", f"bearer {TOKEN}"),
        ("x-api-key", TOKEN),
        ("xi-api-key", TOKEN),
    ],
)
async def test_every_auth_header_opens_both_dialects(
    server: InferdProcess, header: str, value: str
) -> None:
    async with bare(server, **{header: value}) as client:
        assert (await client.post(OPENAI, json=body("t/echo"))).status_code == 200
        assert (await client.post(NATIVE, json={"input": "one"})).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
async def test_a_stranger_is_told_so_in_each_dialects_shape(
    server: InferdProcess, headers: dict[str, str]
) -> None:
    async with bare(server, **headers) as client:
        openai = await client.post(OPENAI, json=body("t/echo"))
        native = await client.post(NATIVE, json={"input": "one"})
    assert openai.status_code == native.status_code == 401
    assert openai.json()["error"]["code"] == "invalid_api_key"
    assert isinstance(native.json()["detail"]["error"], str)


async def test_an_unknown_model_is_404_in_each_dialects_shape(server: InferdProcess) -> None:
    async with server.client() as client:
        openai = await client.post(OPENAI, json=body("t/unknown"))
        native = await client.post("/v1/inference/t/unknown", json={"input": "one"})
    assert openai.status_code == native.status_code == 404
    assert openai.json()["error"]["code"] == "model_not_found"
    assert "t/unknown" in native.json()["detail"]["error"]


@pytest.mark.parametrize(
    ("path", "payload", "field"),
    [
        (OPENAI, body("t/echo", tools=[{"type": "function"}]), "tools"),
        (OPENAI, body("t/echo", functions=[{"name": "f"}]), "functions"),
        (OPENAI, body("t/echo", response_format={"type": "json_schema"}), "response_format"),
        (NATIVE, {"input": "one", "response_format": {"type": "regex"}}, "regex"),
        (NATIVE, {"input": "one", "webhook": "nowhere"}, "webhook"),
    ],
)
async def test_a_field_that_is_not_honoured_is_named(
    server: InferdProcess, path: str, payload: dict[str, Any], field: str
) -> None:
    async with server.client() as client:
        refused = await client.post(path, json=payload)
    assert refused.status_code == 400
    assert field in refused.text


async def test_over_the_context_both_numbers_are_named_and_nothing_is_billed(
    server: InferdProcess,
) -> None:
    async with server.client() as client:
        payload = body("t/echo", "w " * 700, max_tokens=400, user="too long")
        refused = await client.post(OPENAI, json=payload)
    assert refused.status_code == 400
    told = refused.json()["error"]
    assert told["code"] == "context_length_exceeded"
    assert "1000" in told["message"]
    assert "1100" in told["message"]
    assert (await entry_of(server, "too long")).cost_nanos == 0


async def test_a_gzip_body_is_read(server: InferdProcess) -> None:
    packed = gzip.compress(json.dumps(body("t/echo", "packed words")).encode())
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    async with server.client() as client:
        answer = await client.post(OPENAI, content=packed, headers=headers)
    assert answer.json()["choices"][0]["message"]["content"] == "packed words"


@pytest.mark.parametrize("path", [OPENAI, CHAT])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_cost_that_is_told_is_the_ledgers(
    server: InferdProcess, path: str, streamed: bool
) -> None:
    label = f"cost {path} {streamed}"
    async with server.client() as client:
        payload = body("t/echo", "one two three", stream=streamed, n=2, user=label)
        answer = await client.post(path, json=payload)
    entry = await entry_of(server, label)
    text = answer.text.split("\n\n")[-3].removeprefix("data: ") if streamed else answer.text
    usage = json.loads(text)["usage"]
    assert answer.headers["x-request-id"] == entry.request_id
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 6)
    assert (entry.input_tokens, entry.output_tokens) == (3, 6)
    assert usage["estimated_cost"] == usd(entry.cost_nanos) == usd(3 * 1000 + 6 * 2000)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_native_dialect_tells_the_same_cost(
    server: InferdProcess, streamed: bool
) -> None:
    label = f"native {streamed}"
    async with server.client() as client:
        payload = {"input": "one two three", "stream": streamed, "user": label}
        answer = await client.post(NATIVE, json=payload)
    entry = await entry_of(server, label)
    assert entry.cost_nanos == 3 * 1000 + 3 * 2000
    if streamed:
        events = [json.loads(x[6:]) for x in answer.text.split("\n\n") if x.startswith("data: {")]
        assert "".join(e["token"]["text"] for e in events if e["token"]) == "one two three"
        assert events[-1]["generated_text"] == "one two three"
    else:
        told = answer.json()
        assert told["results"][0]["generated_text"] == "one two three"
        assert told["inference_status"]["cost"] == usd(entry.cost_nanos)
        assert told["request_id"] == entry.request_id


async def test_every_chunk_is_one_data_line_and_the_stream_ends_with_done(
    server: InferdProcess,
) -> None:
    async with server.client() as client:
        answer = await client.post(OPENAI, json=body("t/echo", "a b c", stream=True))
    *events, end, rest = answer.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "a b c"
    assert [bool(c["usage"]) for c in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_what_is_public_and_what_is_not(server: InferdProcess) -> None:
    public = ["/health", "/v1/openai/models", "/v1/models", "/models/list", "/models/t/echo"]
    closed = ["/metrics", "/docs", "/openapi.json", "/v1/status", "/v1/usage", "/v1/api-tokens"]
    async with bare(server) as stranger, server.client() as admin:
        for path in public:
            assert (await stranger.get(path)).status_code == 200, path
        for path in closed:
            assert (await stranger.get(path)).status_code == 401, path
            assert (await admin.get(path)).status_code == 200, path


async def test_what_was_served_can_be_verified(server: InferdProcess) -> None:
    code, said = await server.cli("usage", "verify")
    assert (code, said) == (0, f"{len(server.entries())} entries, all right.\n")
