"""The bytes that clients see, recorded. A change here is a change of the wire."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway, echo_card, gateway

RECORDED = Path(__file__).parent / "recorded"
CHAT = {"model": "test/echo", "messages": [{"role": "user", "content": "héllo wörld"}], "seed": 1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat_plain": ("/v1/openai/chat/completions", CHAT),
    "chat_stream": ("/v1/openai/chat/completions", CHAT | {"stream": True}),
    "chat_stream_usage_chunk": (
        "/v1/chat/completions",
        CHAT | {"stream": True, "stream_options": {"include_usage": True}},
    ),
    "chat_stream_two_choices": ("/v1/chat/completions", CHAT | {"stream": True, "n": 2}),
    "completion_plain": ("/v1/completions", {"model": "test/echo", "prompt": "a b"}),
    "completion_stream": (
        "/v1/completions",
        {"model": "test/echo", "prompt": "a b", "stream": True},
    ),
    "native_plain": ("/v1/inference/test/echo", {"input": "a b"}),
    "native_stream": ("/v1/inference/test/echo", {"input": "a b", "stream": True}),
    "chat_refused_field": ("/v1/chat/completions", CHAT | {"tools": [{"type": "function"}]}),
    "chat_out_of_bounds": ("/v1/chat/completions", CHAT | {"temperature": 3}),
    "chat_unknown_model": ("/v1/chat/completions", CHAT | {"model": "no/such"}),
    "native_out_of_bounds": ("/v1/inference/test/echo", {"input": "a", "top_p": 0}),
    "native_unknown_model": ("/v1/inference/no/such", {"input": "a"}),
}


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, echo_card()) as running:
        yield running


def steady(body: bytes) -> str:
    """What differs from run to run, replaced."""
    text = re.sub(r"R[0-9A-Za-z]{23}", "R" + "0" * 23, body.decode())
    text = re.sub(r'("created": ?)\d+', r"\g<1>1", text)
    return re.sub(r'("runtime_ms": ?)\d+', r"\g<1>0", text)


@pytest.mark.parametrize("name", CASES)
async def test_the_wire_is_as_recorded(gate: Gateway, name: str) -> None:
    path, body = CASES[name]
    answer = await gate.client.post(path, body)
    told = f"{answer.status} {answer.headers['content-type']}\n{steady(answer.body)}"
    assert told == (RECORDED / f"{name}.txt").read_text()
