"""Reads a stream of Anthropic's as strictly as its clients do."""

from __future__ import annotations

from typing import Any

import msgspec


def events(stream: bytes) -> list[dict[str, Any]]:
    """The events; each one's name is its type."""
    found: list[dict[str, Any]] = []
    assert stream.endswith(b"\n\n")
    for text in stream.removesuffix(b"\n\n").split(b"\n\n"):
        if text.startswith(b":"):
            continue
        name, _, data = text.partition(b"\ndata: ")
        event = msgspec.json.decode(data)
        assert name == b"event: " + event["type"].encode()
        found.append(event)
    return found


def accumulate(stream: bytes) -> dict[str, Any]:
    """The message that the events make."""
    start, *middle, delta, stop = events(stream)
    assert (start["type"], delta["type"]) == ("message_start", "message_delta")
    assert stop == {"type": "message_stop"}
    message: dict[str, Any] = start["message"]
    assert message["content"] == []
    blocks = _Blocks(message["content"])
    for event in middle:
        blocks.take(event)
    assert not blocks.is_open
    message |= delta["delta"]
    message["usage"] |= delta["usage"]
    return message


class _Blocks:
    """Blocks follow each other, and only the open one grows."""

    def __init__(self, blocks: list[dict[str, Any]]) -> None:
        self.is_open = False
        self._blocks = blocks
        self._input = ""
        self._signed = False

    def take(self, event: dict[str, Any]) -> None:
        if event["type"] == "content_block_start":
            assert not self.is_open
            self._blocks.append(event["content_block"])
            self.is_open, self._input, self._signed = True, "", False
        assert self.is_open
        assert event["index"] == len(self._blocks) - 1
        if event["type"] == "content_block_delta":
            self._grow(self._blocks[-1], event["delta"])
        elif event["type"] == "content_block_stop":
            self._close(self._blocks[-1])

    def _grow(self, block: dict[str, Any], delta: dict[str, str]) -> None:
        kind = delta.pop("type")
        ((name, text),) = delta.items()
        if kind == "signature_delta":
            block["signature"], self._signed = text, True
            return
        assert (block["type"], kind, name) in _GROWS
        if name == "partial_json":
            self._input += text
        else:
            assert text
            block[name] += text

    def _close(self, block: dict[str, Any]) -> None:
        self.is_open = False
        assert self._signed is (block["type"] == "thinking")
        if self._input:
            block["input"] = msgspec.json.decode(self._input)


_GROWS = {
    ("text", "text_delta", "text"),
    ("thinking", "thinking_delta", "thinking"),
    ("tool_use", "input_json_delta", "partial_json"),
}
