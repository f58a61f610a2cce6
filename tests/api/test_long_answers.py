"""Long answers are made and sent in slices, between which everybody else has the loop."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferd.api.exchange import SLICE_BYTES as SENT_BYTES
from inferd.api.services import ApiOptions
from inferd.api.slices import SLICE_BYTES
from inferd.tasks.embeddings import NUMBERS_MAX
from tests.gateway import Gateway, Response, echo_card, gateway
from tests.ledger import entries
from tests.long_answer import Sliced

EMBEDDER = echo_card("test/embedder", task="embeddings", options={"dimensions": 384})
VOICE = echo_card("test/voice", task="text-to-speech")


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, EMBEDDER, VOICE) as running:
        yield running


ROW_BYTES = 1024 * 24
"""More than a vector of 1,024 numbers takes as JSON."""


async def sliced(gate: Gateway, path: str, body: dict[str, Any]) -> Response:
    """The answer, after checking how it came."""
    seen = Sliced(gate.client)
    answer = await seen.post(path, body)
    assert answer.status == 200, answer.body[:500]
    assert len(answer.body) > 2 * SLICE_BYTES
    assert max(seen.sizes) <= max(SLICE_BYTES + ROW_BYTES, SENT_BYTES)
    # The loop came round between any two pieces.
    assert len(set(seen.turns)) == len(seen.turns) > 2
    return answer


class TestEmbeddings:
    INPUTS = ("rain", "snow") * 64

    async def test_numbers(self, gate: Gateway) -> None:
        body = {"model": EMBEDDER.name, "input": self.INPUTS, "dimensions": 1024}
        answer = await sliced(gate, "/v1/embeddings", body)
        told = answer.json()
        assert [one["index"] for one in told["data"]] == list(range(128))
        assert {len(one["embedding"]) for one in told["data"]} == {1024}
        assert told["usage"]["prompt_tokens"] == 128

    async def test_base64(self, gate: Gateway) -> None:
        body = {"model": EMBEDDER.name, "input": self.INPUTS, "dimensions": 1024}
        answer = await sliced(gate, "/v1/embeddings", {**body, "encoding_format": "base64"})
        told = [b64decode(one["embedding"], validate=True) for one in answer.json()["data"]]
        assert {len(one) for one in told} == {4096}
        assert told[0] == told[2] != told[1]

    async def test_native(self, gate: Gateway) -> None:
        body = {"inputs": self.INPUTS, "dimensions": 1024}
        told = (await sliced(gate, f"/v1/inference/{EMBEDDER.name}", body)).json()
        assert [len(one) for one in told["embeddings"]] == [1024] * 128
        assert told["inference_status"]["status"] == "succeeded"

    async def test_a_short_answer_says_how_long_it_is(self, gate: Gateway) -> None:
        answer = await gate.client.post("/v1/embeddings", {"model": EMBEDDER.name, "input": "rain"})
        assert answer.headers["content-length"] == str(len(answer.body))

    @pytest.mark.parametrize("native", [False, True])
    async def test_more_numbers_than_an_answer_holds_are_refused_before_any_work(
        self, gate: Gateway, *, native: bool
    ) -> None:
        count = NUMBERS_MAX // 16_384 + 1
        inputs = {"inputs" if native else "input": ["a"] * count, "dimensions": 16_384}
        path = f"/v1/inference/{EMBEDDER.name}" if native else "/v1/embeddings"
        answer = await gate.client.post(path, {**inputs, "model": EMBEDDER.name})
        assert answer.status == 400
        assert str(NUMBERS_MAX) in answer.body.decode()
        assert gate.flights == []

    async def test_more_token_ids_than_the_model_reads_are_refused_before_any_work(
        self, gate: Gateway
    ) -> None:
        body = {"model": EMBEDDER.name, "input": [[1], [1] * (EMBEDDER.context_length + 1)]}
        answer = await gate.client.post("/v1/embeddings", body)
        assert answer.status == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert gate.flights == []


async def test_a_long_recording(gate: Gateway) -> None:
    body = {"text": "word " * 4000}
    told = (await sliced(gate, f"/v1/inference/{VOICE.name}", body)).json()
    head, _, text = told["audio"].partition(",")
    assert head == "data:audio/wav;base64"
    assert b64decode(text, validate=True).startswith(b"RIFF")


async def test_a_client_with_a_key_gets_the_same_slices_again(gate: Gateway) -> None:
    body = {"model": EMBEDDER.name, "input": TestEmbeddings.INPUTS, "dimensions": 512}
    headers = {"idempotency-key": "one"}
    first = await gate.client.post("/v1/embeddings", body, headers=headers)
    again = await gate.client.post("/v1/embeddings", body, headers=headers)
    assert (again.status, again.body) == (200, first.body)
    assert len(gate.flights) == 1


async def test_a_client_that_stops_reading_is_gone_and_has_paid(tmp_path: Path) -> None:
    options = ApiOptions(stall_seconds=0.05)
    async with gateway(tmp_path, EMBEDDER, options=options) as gate:
        body = {"model": EMBEDDER.name, "input": TestEmbeddings.INPUTS, "dimensions": 512}
        seen = Sliced(gate.client, reads=2)
        await seen.post("/v1/embeddings", body)
        assert len(seen.sizes) == 2
        (entry,) = await entries(gate)
        assert entry.status == "succeeded"
