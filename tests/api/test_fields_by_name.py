"""A field that is missing or of the wrong kind is named, in each dialect's own place for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from inferd.tasks.base import TaskName
from tests.gateway import Gateway, Response, echo_card, gateway

TASKS: tuple[TaskName, ...] = ("embeddings", "automatic-speech-recognition", "text-to-image")


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    cards = [echo_card(f"test/{task}", task=task) for task in TASKS]
    async with gateway(tmp_path, *cards) as running:
        yield running


class Form(NamedTuple):
    """A body with parts."""

    body: bytes
    headers: dict[str, str]


def form(**fields: str) -> Form:
    parts = "".join(
        f'--cut\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in fields.items()
    )
    kind = {"content-type": "multipart/form-data; boundary=cut"}
    return Form(f"{parts}--cut--\r\n".encode(), kind)


async def post(gate: Gateway, path: str, body: dict[str, Any] | Form) -> Response:
    if isinstance(body, Form):
        return await gate.client.post(path, body.body, headers=body.headers)
    return await gate.client.post(path, body)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, "model"),
        ("/v1/chat/completions", {"model": "a/b"}, "messages"),
        ("/v1/chat/completions", {"model": "a/b", "messages": [{"content": "a"}]}, None),
        ("/v1/completions", {"model": "a/b"}, "prompt"),
        ("/v1/embeddings", {"input": "a"}, "model"),
        ("/v1/embeddings", {"model": "a/b", "input": 7}, "input"),
        ("/v1/images/generations", {"model": "test/text-to-image"}, "prompt"),
        ("/v1/images/edits", form(model="test/text-to-image", prompt="a"), "image"),
        ("/v1/audio/transcriptions", form(model="test/automatic-speech-recognition"), "file"),
        ("/v1/audio/speech", {"model": "a/b"}, "input"),
        ("/v1/videos", {"model": "a/b"}, "prompt"),
        ("/v1/responses", {"input": "a"}, "model"),
        ("/v1/rerank", {"model": "a/b", "query": "a"}, "documents"),
    ],
)
async def test_openai_routes_name_it_in_param(
    gate: Gateway, path: str, body: Any, param: str | None
) -> None:
    answer = await post(gate, path, body)
    assert answer.status == 400
    told = answer.json()["error"]
    assert told["param"] == (param or "messages.0.role")
    assert told["param"] in told["message"]


@pytest.mark.parametrize(
    ("task", "body", "item"),
    [
        (
            "embeddings",
            {},
            {"type": "missing", "loc": ["body", "inputs"], "msg": "Field required", "input": {}},
        ),
        (
            "embeddings",
            {"inputs": [1]},
            {
                "type": "string_type",
                "loc": ["body", "inputs", 0],
                "msg": "Expected str, got int",
                "input": 1,
            },
        ),
        (
            "automatic-speech-recognition",
            form(language="en", audio_url="x"),
            {
                "type": "missing",
                "loc": ["body", "audio"],
                "msg": "Field required",
                "input": {"language": "en"},
            },
        ),
        (
            "text-to-image",
            {},
            {"type": "missing", "loc": ["body", "prompt"], "msg": "Field required", "input": {}},
        ),
    ],
)
async def test_native_routes_answer_fastapis_list(
    gate: Gateway, task: str, body: Any, item: dict[str, Any]
) -> None:
    answer = await post(gate, f"/v1/inference/test/{task}", body)
    assert answer.status == 422
    assert answer.json() == {"detail": [item]}
