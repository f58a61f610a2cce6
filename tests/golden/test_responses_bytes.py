"""The bytes of the Responses API, recorded. A change here is a change of the wire."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway, echo_card, gateway

RECORDED = Path(__file__).parent / "recorded"
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Graz"}}\n</tool_call>'
ASKED = {
    "model": "test/echo",
    "input": f"<think>hm</think>wörld {CALL}",
    "instructions": "be brief",
    "tools": [TOOL],
}
CASES: dict[str, dict[str, Any]] = {
    "responses_plain": ASKED,
    "responses_stream": ASKED | {"stream": True},
    "responses_incomplete": {"model": "test/echo", "input": "a b", "max_output_tokens": 1},
    "responses_unknown_item": {"model": "test/echo", "input": [{"type": "web_search_call"}]},
    "responses_out_of_bounds": {"model": "test/echo", "input": "a", "top_p": 0},
}


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, echo_card(tags=("reasoning",))) as running:
        yield running


def steady(body: bytes) -> str:
    """What differs from run to run, replaced."""
    text = re.sub(r"R[0-9A-Za-z]{23}", "R" + "0" * 23, body.decode())
    text = re.sub(r"call_[0-9A-Za-z]{24}", "call_" + "0" * 24, text)
    return re.sub(r'("(?:created|completed)_at":)\d+', r"\g<1>1", text)


@pytest.mark.parametrize("name", CASES)
async def test_the_wire_is_as_recorded(gate: Gateway, name: str) -> None:
    answer = await gate.client.post("/v1/responses", CASES[name])
    told = f"{answer.status} {answer.headers['content-type']}\n{steady(answer.body)}"
    assert told == (RECORDED / f"{name}.txt").read_text()
