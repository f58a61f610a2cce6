"""Optional fields of the contract: they have their effect, or do no harm; never silently wrong."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferd.tasks.embeddings import EmbeddingsRequest
from inferd.tasks.reranker import RerankRequest
from inferd.tasks.speech_recognition import TranscriptionRequest
from tests.gateway import Gateway, echo_card, gateway

TOLD = {"instruction": "Instruct: {instruction}\nQuery: {text}"}
CARDS = (
    echo_card("test/embedder", task="embeddings"),
    echo_card("test/told-embedder", task="embeddings", options=TOLD),
    echo_card("test/judge", task="reranker"),
    echo_card("test/long-judge", task="reranker", context_length=8192),
    echo_card("test/told-judge", task="reranker", options=TOLD),
    echo_card("test/painter", task="text-to-image"),
    echo_card("test/speaker", task="text-to-speech"),
    echo_card("test/ear", task="automatic-speech-recognition"),
    echo_card("test/film", task="text-to-video", options={"seconds_max": 3, "first_frame": False}),
)
PICTURE = "data:image/png;base64," + b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
SOUND = "data:audio/wav;base64," + b64encode(b"RIFF\x24\0\0\0WAVE").decode()


class Seen:
    """What reaches the engines."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[Any] = []
        from tests.gateway import InProcessReplica

        run = InProcessReplica.run

        def watched(replica: Any, request_id: str, request: Any, flight: Any) -> Any:
            self.requests.append(request)
            return run(replica, request_id, request, flight)

        monkeypatch.setattr(InProcessReplica, "run", watched)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, *CARDS) as running:
        yield running


@pytest.mark.parametrize("field", ["instruction", "custom_instruction"])
@pytest.mark.parametrize(
    ("path", "task", "body"),
    [
        ("/v1/embeddings", "embedder", {"input": "a"}),
        ("/v1/inference", "embedder", {"inputs": ["a"]}),
        ("/v1/rerank", "judge", {"query": "a", "documents": ["a"]}),
        ("/v1/inference", "judge", {"query": "a", "documents": ["a"]}),
    ],
)
async def test_an_instruction_reaches_a_model_that_takes_one_and_no_other(
    gate: Gateway, seen: Seen, field: str, path: str, task: str, body: dict[str, Any]
) -> None:
    for name in (f"test/told-{task}", f"test/{task}"):
        at = f"{path}/{name}" if path == "/v1/inference" else path
        answer = await gate.client.post(at, {**body, "model": name, field: "Find poems."})
        assert answer.status == 200, answer.body
    told, other = seen.requests
    assert isinstance(told, EmbeddingsRequest | RerankRequest)
    assert (told.instruction, other.instruction) == ("Find poems.", None)


@pytest.mark.parametrize(
    ("path", "given", "told"),
    [
        ("/v1/rerank", None, None),
        ("/v1/openai/rerank", None, None),
        ("/v2/rerank", None, 4096),
        ("/v1/rerank", 5000, 5000),
        ("/v2/rerank", 5000, 5000),
        ("/v2/rerank", 3, 3),
        ("/v2/rerank", 9000, 8192),
    ],
)
async def test_how_many_tokens_of_a_document_count(
    gate: Gateway, seen: Seen, path: str, given: int | None, told: int | None
) -> None:
    """Cohere's v2 says 4096 where nothing is said; models read no more than their context."""
    body = {"model": "test/long-judge", "query": "a", "documents": ["a b c d"]}
    answer = await gate.client.post(path, body | {"max_tokens_per_doc": given})
    assert answer.status == 200, answer.body
    assert seen.requests[0].document_tokens_max == told
    assert answer.json()["usage"]["prompt_tokens"] == 1 + min(4, told or 4)


@pytest.mark.parametrize("path", ["edits", "variations"])
async def test_a_picture_of_an_edit_may_stand_alone(gate: Gateway, path: str) -> None:
    for image in (PICTURE, [PICTURE]):
        body = {"model": "test/painter", "prompt": "a", "size": "64x64", "image": image}
        answer = await gate.client.post(f"/v1/images/{path}", body)
        assert answer.status == 200, answer.body


async def test_variations_are_not_streamed_and_it_says_so(gate: Gateway) -> None:
    body = {"model": "test/painter", "size": "64x64", "image": PICTURE, "stream": True}
    answer = await gate.client.post("/v1/images/variations", body)
    assert (answer.status, answer.json()["error"]["param"]) == (400, "stream")
    assert (await gate.client.post("/v1/images/variations", body | {"stream": False})).status == 200


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/audio/speech", {"input": "hello", "instructions": "Speak like a pirate."}),
        ("/v1/text-to-speech/anyone", {"text": "hello", "seed": 7}),
    ],
)
async def test_hints_to_speakers_do_no_harm(gate: Gateway, path: str, fields: Any) -> None:
    body = {"model": "test/speaker", "model_id": "test/speaker", **fields}
    assert (await gate.client.post(path, body)).status == 200


@pytest.mark.parametrize(("length", "seconds"), [(15.0, 15), (15, 15), (None, 30), (15.5, None)])
async def test_whole_seconds_may_be_written_as_a_float(
    gate: Gateway, seen: Seen, length: float | None, seconds: int | None
) -> None:
    body: dict[str, Any] = {"audio": SOUND, "chunk_length_s": length}
    if length is None:
        del body["chunk_length_s"]
    answer = await gate.client.post("/v1/inference/test/ear", body)
    if seconds is None:
        assert answer.status == 400
        assert seen.requests == []
    else:
        (request,) = seen.requests
        assert isinstance(request, TranscriptionRequest)
        assert request.chunk_seconds == seconds


class TestFilms:
    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"seconds": 4}, "seconds"),
            ({"image_url": PICTURE}, "image_url"),
            ({"input_reference": PICTURE}, "input_reference"),
        ],
    )
    async def test_what_a_model_never_makes_is_not_queued(
        self, gate: Gateway, fields: dict[str, Any], param: str
    ) -> None:
        body = {"model": "test/film", "prompt": "a", **fields}
        answer = await gate.client.post("/v1/videos", body)
        assert (answer.status, answer.json()["error"]["param"]) == (400, param)
        assert gate.flights == []

    async def test_what_it_makes_is(self, gate: Gateway) -> None:
        body = {"model": "test/film", "prompt": "a", "seconds": 3}
        answer = await gate.client.post("/v1/videos", body)
        assert (answer.status, answer.json()["status"]) == (200, "queued")
