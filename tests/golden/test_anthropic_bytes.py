"""The bytes that Anthropic's clients see, recorded. A change here is a change of the wire."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway, echo_card, gateway
from tests.golden.test_wire_bytes import RECORDED, steady

MESSAGES = "/anthropic/v1/messages"
HELLO = {"model": "test/echo", "messages": [{"role": "user", "content": "héllo wörld"}]}
CALL = (
    '<think>hm</think>\n\nI ask.\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
)
ASKING = {
    "model": "test/echo",
    "messages": [{"role": "user", "content": CALL}],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic_plain": (MESSAGES, HELLO),
    "anthropic_stream": (MESSAGES, HELLO | {"stream": True}),
    "anthropic_call_plain": (MESSAGES, ASKING),
    "anthropic_call_stream": (MESSAGES, ASKING | {"stream": True}),
    "anthropic_count_tokens": (f"{MESSAGES}/count_tokens", HELLO),
    "anthropic_out_of_bounds": (MESSAGES, HELLO | {"max_tokens": 0}),
    "anthropic_unknown_model": (MESSAGES, HELLO | {"model": "no/such"}),
}


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, echo_card(tags=("reasoning",))) as running:
        yield running


@pytest.mark.parametrize("name", CASES)
async def test_the_wire_is_as_recorded(gate: Gateway, name: str) -> None:
    path, body = CASES[name]
    answer = await gate.client.post(path, body)
    text = re.sub(r"toolu_[0-9A-Za-z]{24}", "toolu_" + "0" * 24, steady(answer.body))
    told = f"{answer.status} {answer.headers['content-type']}\n{text}"
    assert told == (RECORDED / f"{name}.txt").read_text()
