"""Voices that a model lists, and those that it does not: 404 in each dialect's own shape."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway, echo_card, gateway

SPEAKER = echo_card(
    "test/speaker", task="text-to-speech", options={"voices": ["af_sky", "bm_george"]}
)
SENTENCE = "There is no voice 'nobody'. There are af_sky, bm_george."


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, SPEAKER) as running:
        yield running


@pytest.mark.parametrize("name", ["nobody", "af_sky+nobody", "../../x"])
async def test_openai_routes(gate: Gateway, name: str) -> None:
    body = {"model": SPEAKER.name, "input": "hello", "voice": name}
    answer = await gate.client.post("/v1/audio/speech", body)
    assert answer.status == 404
    told = answer.json()["error"]
    assert (told["param"], told["code"]) == ("voice", "voice_not_found")
    assert gate.flights == []


@pytest.mark.parametrize("name", ["nobody", ["af_sky", "nobody"]])
async def test_native_routes(gate: Gateway, name: Any) -> None:
    body = {"text": "hello", "preset_voice": name}
    answer = await gate.client.post(f"/v1/inference/{SPEAKER.name}", body)
    assert (answer.status, answer.json()) == (404, {"detail": {"error": SENTENCE}})


@pytest.mark.parametrize("more", ["", "/stream"])
async def test_elevenlabs_routes(gate: Gateway, more: str) -> None:
    body = {"text": "hello", "model_id": SPEAKER.name}
    answer = await gate.client.post(f"/v1/text-to-speech/nobody{more}", body)
    assert answer.status == 404
    told = answer.json()["detail"]
    assert (told["status"], told["message"]) == ("voice_not_found", SENTENCE)


@pytest.mark.parametrize("name", ["af_sky", "alloy+af_sky", None])
async def test_voices_that_are_there_speak(gate: Gateway, name: str | None) -> None:
    known = name != "alloy+af_sky"
    body = {"model": SPEAKER.name, "input": "hello", "voice": name}
    assert (await gate.client.post("/v1/audio/speech", body)).status == (200 if known else 404)


async def test_a_wav_that_is_not_streamed_says_how_long_it_is(gate: Gateway) -> None:
    body = {"text": "One. Two. Three.", "model_id": SPEAKER.name}
    told = await gate.client.post("/v1/text-to-speech/af_sky", body)
    assert told.headers["content-length"] == str(len(told.body))
    assert told.headers["content-type"] == "audio/wav"
    assert int.from_bytes(told.body[4:8], "little") == len(told.body) - 8
    assert int.from_bytes(told.body[40:44], "little") == len(told.body) - 44


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nobody", 404),
        ("DELETE", "nobody", 404),
        ("POST", "nobody/edit", 404),
        ("GET", "af_sky", 200),
        ("DELETE", "af_sky", 403),
        ("POST", "af_sky/edit", 400),
        ("POST", "add", 400),
    ],
)
async def test_built_in_voices_stay(gate: Gateway, method: str, path: str, status: int) -> None:
    answer = await gate.client.call(method, f"/v1/voices/{path}", b"")
    assert answer.status == status
    if status != 200:
        assert set(answer.json()["detail"]) == {"status", "message", "error"}
