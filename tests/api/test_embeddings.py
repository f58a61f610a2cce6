"""Embeddings over the wire with the packaged MiniLM, one class for each status."""

from __future__ import annotations

import asyncio
import struct
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from inferd.money import usd
from inferd.serving.router import RouterOptions
from tests.gateway import Gateway, Response, gateway
from tests.ledger import entries
from tests.weights import local_card

MODEL = "sentence-transformers/all-MiniLM-L6-v2"

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    options = RouterOptions(memory_bytes=1 << 33)
    folder = tmp_path_factory.mktemp("embeddings")
    async with gateway(folder, local_card(MODEL), router_options=options) as running:
        yield running


async def openai(gate: Gateway, path: str = "/v1/openai/embeddings", **body: Any) -> Response:
    return await gate.client.post(path, {"model": MODEL, **body})


async def native(gate: Gateway, **body: Any) -> Response:
    return await gate.client.post(f"/v1/inference/{MODEL}", body)


async def vectors(gate: Gateway, given: Any, **body: Any) -> list[list[float]]:
    answer = await openai(gate, input=given, **body)
    assert answer.status == 200, answer.body
    return [one["embedding"] for one in answer.json()["data"]]


def near(vector: list[float]) -> Any:
    return pytest.approx(vector, abs=1e-4)


class Test200:
    @pytest.mark.parametrize("path", ["/v1/openai/embeddings", "/v1/embeddings"])
    async def test_the_body_is_openais(self, gate: Gateway, path: str) -> None:
        answer = await openai(gate, path, input=["rain", "a red bicycle"])
        body = answer.json()
        assert (body["object"], body["model"]) == ("list", MODEL)
        assert [(one["index"], one["object"]) for one in body["data"]] == [
            (0, "embedding"),
            (1, "embedding"),
        ]
        assert [len(one["embedding"]) for one in body["data"]] == [384, 384]
        usage = body["usage"]
        assert usage["prompt_tokens"] == usage["total_tokens"] == 8
        assert usage["estimated_cost"] > 0
        assert {"x-queue-ms", "x-inference-ms"} <= set(answer.headers)

    async def test_base64_is_the_same_in_float32(self, gate: Gateway) -> None:
        numbers = await vectors(gate, ["rain", "snow"], encoding_format="float")
        packed = await vectors(gate, ["rain", "snow"], encoding_format="base64")
        for vector, text in zip(numbers, packed, strict=True):
            assert isinstance(text, str)
            assert list(struct.unpack("<384f", b64decode(text, validate=True))) == near(vector)

    async def test_a_text_a_list_parts_and_token_ids(self, gate: Gateway) -> None:
        (wanted,) = await vectors(gate, "hello world")
        parts = [[{"type": "text", "text": "hello "}, {"type": "text", "text": "world"}]]
        ids = [101, 7592, 2088, 102]
        for given in (["hello world"], parts, ids, [ids]):
            assert await vectors(gate, given) == [near(wanted)]

    async def test_dimensions_cut_and_pad(self, gate: Gateway) -> None:
        (whole,) = await vectors(gate, "rain")
        (cut,) = await vectors(gate, "rain", dimensions=32)
        length = sum(number**2 for number in whole[:32]) ** 0.5
        assert cut == near([number / length for number in whole[:32]])
        (padded,) = await vectors(gate, "rain", dimensions=400)
        assert padded == near([*whole, *[0.0] * 16])

    @pytest.mark.parametrize("kind", ["query", "passage", "document"])
    async def test_input_types_are_taken(self, gate: Gateway, kind: str) -> None:
        # This model has no prefixes.
        assert await vectors(gate, "rain", input_type=kind) == [
            near((await vectors(gate, "rain"))[0])
        ]

    async def test_the_native_body(self, gate: Gateway) -> None:
        answer = await native(gate, inputs=["rain", "snow"])
        body = answer.json()
        wanted = await vectors(gate, ["rain", "snow"])
        assert [near(vector) for vector in wanted] == body["embeddings"]
        assert body["input_tokens"] == 6
        assert body["request_id"].startswith("R")
        status = body["inference_status"]
        assert status["status"] == "succeeded"
        assert (status["tokens_input"], status["tokens_generated"]) == (6, 0)

    async def test_not_normalised_where_it_says_so(self, gate: Gateway) -> None:
        (raw,) = (await native(gate, inputs=["rain"], normalize=False)).json()["embeddings"]
        length = sum(number**2 for number in raw) ** 0.5
        assert abs(length - 1) > 0.01
        assert [number / length for number in raw] == near((await vectors(gate, "rain"))[0])

    async def test_what_it_costs_is_in_the_ledger(self, gate: Gateway) -> None:
        body = (await native(gate, inputs=["rain"] * 100)).json()
        entry = (await entries(gate))[-1]
        assert (entry.task, entry.status, entry.input_tokens) == ("embeddings", "succeeded", 300)
        assert usd(entry.cost_nanos) == body["inference_status"]["cost"] > 0

    async def test_many_callers_get_their_own(self, gate: Gateway) -> None:
        texts = [f"case {index} {'and so on ' * (index % 5)}" for index in range(64)]
        together = await vectors(gate, texts)
        alone = await asyncio.gather(*(vectors(gate, text) for text in texts))
        assert [near(vector) for vector in together] == [one[0] for one in alone]

    async def test_1024_texts_are_taken(self, gate: Gateway) -> None:
        assert len(await vectors(gate, ["x"] * 1024, dimensions=32)) == 1024


class Test400:
    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"input": []}, "input"),
            ({"input": ""}, "input.0"),
            ({"input": ["a", ""]}, "input.1"),
            ({"input": ["a", 5]}, "input.1"),
            ({"input": [["a"]]}, "input.0.0"),
            ({"input": [[7592, {"type": "text", "text": "a"}]]}, "input.0"),
            ({"input": [[{"type": "image_url", "image_url": "x"}]]}, "input.0"),
            ({"input": [-5]}, "input.0"),
            ({"input": [[30522]]}, "input"),
            ({"input": "so it goes " * 300}, "input"),
            ({"input": ["a"] * 1025}, "input"),
            ({"input": {"a": 1}}, "input"),
            ({"input": "a", "dimensions": 31}, "dimensions"),
            ({"input": "a", "dimensions": 16_385}, "dimensions"),
            ({"input": "a", "dimensions": 64.5}, "dimensions"),
            ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
            ({"input": "a", "input_type": "poem"}, "input_type"),
            ({}, "input"),
        ],
    )
    async def test_openai(self, gate: Gateway, body: Any, param: str | None) -> None:
        answer = await openai(gate, **body)
        assert answer.status in (400, 422), answer.body
        error = answer.json()["error"]
        assert error["message"]
        assert error["param"] == param

    @pytest.mark.parametrize(
        "body",
        [
            {"inputs": []},
            {"inputs": [""]},
            {"inputs": ["a"] * 1025},
            {"inputs": ["a"], "image": "data:image/png;base64,AAAA"},
            {"inputs": ["a"], "dimensions": 2},
        ],
    )
    async def test_native(self, gate: Gateway, body: Any) -> None:
        answer = await native(gate, **body)
        assert answer.status in (400, 422), answer.body
        assert "error" in answer.body.decode()

    async def test_a_bad_text_fails_alone(self, gate: Gateway) -> None:
        good = [openai(gate, input=f"text {index}") for index in range(8)]
        bad = openai(gate, input="so it goes " * 300)
        answers = await asyncio.gather(*good, bad)
        assert [answer.status for answer in answers] == [200] * 8 + [400]

    async def test_nothing_is_charged(self, gate: Gateway) -> None:
        await openai(gate, input=["good", "so it goes " * 300])
        entry = (await entries(gate))[-1]
        assert (entry.status, entry.cost_nanos) == ("failed", 0)
