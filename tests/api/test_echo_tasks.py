"""The fake engine serves every task over the wire, with exact units: what load tests stand on."""

from __future__ import annotations

import asyncio
import io
import wave
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import pytest_asyncio

from inferd.catalog.card import ModelCard
from inferd.catalog.card_price import CardPrice
from inferd.serving.router import RouterOptions
from inferd.tasks.base import MICRO, TaskName
from tests.gateway import Gateway, Response, echo_card, gateway
from tests.ledger import entries

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

PRICES: dict[TaskName, CardPrice] = {
    "automatic-speech-recognition": CardPrice(input_seconds="0.01"),
    "text-to-speech": CardPrice(input_characters="10"),
    "text-to-image": CardPrice(image_units="0.01"),
    "text-to-video": CardPrice(output_seconds="0.01"),
    **dict.fromkeys(
        (
            "zero-shot-image-classification",
            "image-classification",
            "object-detection",
            "document-to-text",
        ),
        CardPrice(compute_seconds="1"),
    ),
}
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


def name_of(task: TaskName) -> str:
    return f"test/{task}"


def card_of(task: TaskName) -> ModelCard:
    price = PRICES.get(task, CardPrice(input="1", output="2"))
    options: dict[str, Any] = {"steps": 4, "default_width": 64, "default_height": 64}
    context = 0 if task in PRICES else 1000
    return echo_card(name_of(task), task=task, price=price, options=options, context_length=context)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    cards = [card_of(task) for task in get_args(TaskName)]
    folder = tmp_path_factory.mktemp("echo")
    options = RouterOptions(memory_bytes=1 << 33)
    async with gateway(folder, *cards, router_options=options) as running:
        yield running


def recording(seconds: float = 1.5) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * int(8000 * seconds))
    return out.getvalue()


def base64(content: bytes) -> str:
    return b64encode(content).decode()


class Call(NamedTuple):
    """One call and what it must be billed for."""

    task: TaskName
    path: str
    """`native`, or a path of another dialect."""
    body: dict[str, Any]
    tokens: int = 0
    quantity: int = 0
    output: int = 0

    def __str__(self) -> str:
        return f"{self.task} {self.path}"


IMAGE_UNIT = 64 * 64 * MICRO // 2**20
"""Rounded half up: 3906.25 millionths."""
CALLS = [
    Call("text-generation", "native", {"input": "one two"}, 2, 0, 2),
    Call(
        "text-generation",
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "one two"}]},
        *(2, 0, 2),
    ),
    Call("embeddings", "native", {"inputs": ["a b", "c"]}, 3),
    Call("embeddings", "/v1/embeddings", {"input": ["a b", "c"]}, 3),
    Call("reranker", "native", {"queries": ["a b"], "documents": ["b c", "d"]}, 7),
    Call("reranker", "/v1/rerank", {"query": "a b", "documents": ["b c", "d"]}, 7),
    Call("automatic-speech-recognition", "native", {}, 0, 1_500_000),
    Call("automatic-speech-recognition", "/v1/audio/transcriptions", {}, 0, 1_500_000),
    Call("text-to-speech", "native", {"text": "one two"}, 0, 7 * MICRO),
    Call(
        "text-to-speech",
        "/v1/audio/speech",
        {"input": "one two", "voice": "any", "response_format": "pcm"},
        *(0, 7 * MICRO),
    ),
    Call("text-to-image", "native", {"prompt": "red", "width": 64, "height": 64}, 0, IMAGE_UNIT),
    Call(
        "text-to-image",
        "/v1/images/generations",
        {"prompt": "red", "size": "64x64", "n": 2},
        *(0, (2 * 64 * 64 * MICRO + 2**19) // 2**20),
    ),
    Call("image-classification", "native", {"image": base64(PNG)}, 0, 1000),
    Call("object-detection", "native", {"image": base64(PNG)}, 0, 1000),
    Call("document-to-text", "native", {"image": base64(PNG)}, 0, 1000),
    Call(
        "zero-shot-image-classification",
        "native",
        {"image": base64(PNG), "candidate_labels": ["a", "b"]},
        *(0, 1000),
    ),
    Call("text-classification", "native", {"input": "one two"}, 2),
    Call("token-classification", "native", {"input": "in Rome"}, 2),
    Call("fill-mask", "native", {"input": "one [MASK]"}, 2),
    Call("question-answering", "native", {"question": "who", "context": "one two"}, 3),
]
FILMS = [
    Call("text-to-video", "native", {"prompt": "red", "seconds": 1.5}, 0, 1_500_000),
    Call("text-to-video", "/v1/videos", {"prompt": "red", "seconds": 2}, 0, 2_000_000),
]


async def ask(gate: Gateway, call: Call, **more: Any) -> Response:
    body, path = {**call.body, **more}, call.path
    if path == "/v1/audio/transcriptions":
        head = b'--c\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        file = b'\r\n--c\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        raw = head + name_of(call.task).encode() + file + recording() + b"\r\n--c--\r\n"
        kind = {"content-type": "multipart/form-data; boundary=c"}
        return await gate.client.post(path, raw, headers=kind)
    if call.task == "automatic-speech-recognition":
        body["audio"] = base64(recording())
    if path == "native":
        return await gate.client.post(f"/v1/inference/{name_of(call.task)}", body)
    return await gate.client.post(path, {"model": name_of(call.task), **body})


async def film(gate: Gateway, call: Call) -> Response:
    answer = await ask(gate, call)
    if call.path == "native":
        return answer
    async with asyncio.timeout(20):
        while answer.json()["status"] not in ("succeeded", "failed"):
            answer = await gate.client.get(f"/v1/videos/{answer.json()['id']}")
    assert answer.json()["status"] == "succeeded"
    return answer


async def billed(gate: Gateway, call: Call) -> None:
    entry = (await entries(gate))[-1]
    assert entry.status == "succeeded"
    assert entry.model == name_of(call.task)
    used = (entry.input_tokens, entry.quantity, entry.output_tokens)
    assert used == (call.tokens, call.quantity, call.output)
    assert entry.cost_nanos > 0


@pytest.mark.parametrize("call", CALLS, ids=str)
async def test_every_task_is_answered_and_billed_to_the_unit(gate: Gateway, call: Call) -> None:
    answer = await ask(gate, call)
    assert answer.status == 200, answer.body
    assert answer.body
    await billed(gate, call)


@pytest.mark.engine
@pytest.mark.parametrize("call", FILMS, ids=str)
async def test_films_too(gate: Gateway, call: Call) -> None:
    answer = await film(gate, call)
    assert answer.status == 200, answer.body
    await billed(gate, call)


async def test_no_task_is_left_out() -> None:
    assert {call.task for call in CALLS + FILMS if call.path == "native"} == set(get_args(TaskName))


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("text-generation", {"input": "one echo:fail_after=1 two"}),
        ("embeddings", {"inputs": ["a", "b", "echo:fail_after=2"]}),
        ("reranker", {"queries": ["echo:fail_after=1"], "documents": ["b", "c"]}),
        ("automatic-speech-recognition", {"initial_prompt": "echo:fail_after=1"}),
        ("text-to-speech", {"text": "one two echo:fail_after=1"}),
        ("text-to-image", {"prompt": "red echo:fail_after=2", "size": "64x64"}),
        ("question-answering", {"question": "echo:fail_after=1", "context": "one two"}),
    ],
)
async def test_a_request_may_ask_to_fail(
    gate: Gateway, task: TaskName, body: dict[str, Any]
) -> None:
    answer = await ask(gate, Call(task, "native", body))
    assert answer.status == 500
    assert b"told to fail" in answer.body
    assert (await entries(gate))[-1].status == "failed"


async def test_who_leaves_pays_for_the_steps_until_then(gate: Gateway) -> None:
    gone = asyncio.Event()
    text = "echo:token_ms=20 " + "w " * 500
    call = gate.client.post(
        "/v1/audio/speech",
        {"model": name_of("text-to-speech"), "input": text, "voice": "x", "stream": True},
        gone=gone,
        sent=gone,
    )
    await call
    entry = (await entries(gate))[-1]
    assert entry.status == "cancelled"
    assert 0 < entry.quantity < len(text) * MICRO


async def test_the_fake_is_in_no_catalogue() -> None:
    cards = Path(__file__).parents[2] / "src" / "inferd" / "catalog" / "cards"
    assert not [path for path in cards.glob("*.toml") if 'engine = "echo"' in path.read_text()]


async def test_models_with_the_same_voices_are_listed_once(tmp_path: Path) -> None:
    voices = {"voices": ["af_one", "bm_two"]}
    price = PRICES["text-to-speech"]
    speaks: dict[str, Any] = {"task": "text-to-speech", "options": voices, "price": price}
    cards = [echo_card(name, **speaks) for name in ("test/cpu", "test/gpu")]
    async with gateway(tmp_path, *cards) as gate:
        listed = (await gate.client.get("/v1/voices")).json()["voices"]
    assert [voice["voice_id"] for voice in listed] == ["af_one", "bm_two"]
