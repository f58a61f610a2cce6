"""Asks the Responses API, and reads its streams the way a strict client does."""

from __future__ import annotations

from typing import Any

import msgspec
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_GROWS = {
    "response.output_text.delta": "text",
    "response.reasoning_text.delta": "text",
    "response.function_call_arguments.delta": "arguments",
}


RESPONSES = "/v1/responses"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
TIME = {"type": "function", "name": "time", "parameters": {"type": "object"}}


def body(input_: Any = "one two three", **fields: Any) -> dict[str, Any]:
    return {"model": "test/echo", "input": input_, **fields}


def call(call_id: str = "call_1", **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"} | fields


def output(call_id: str = "call_1", text: Any = "sun") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def read_events(body: bytes) -> list[dict[str, Any]]:
    """All events. Names match types, numbers count up from 0, and OpenAI's types accept each."""
    events: list[dict[str, Any]] = []
    blocks = body.decode().split("\n\n")
    assert blocks.pop() == ""
    for number, block in enumerate(b for b in blocks if not b.startswith(":")):
        name, data = block.split("\n")
        event = msgspec.json.decode(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        _EVENT.validate_python(event)
        events.append(event)
    return events


def accumulate(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output items, from nothing but the deltas; whatever is done equals what grew."""
    items: list[Any] = []
    for event in events:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
        elif kind == "response.content_part.added":
            assert event["content_index"] == len(items[event["output_index"]]["content"])
            items[event["output_index"]]["content"].append(event["part"])
        elif kind in _GROWS:
            _grow(_grown(items, event), event, _GROWS[kind])
        elif kind == "response.output_item.done":
            grown = items[event["output_index"]]
            assert event["item"] | {"status": None} == grown | {"status": None}
            items[event["output_index"]] = event["item"]
        elif kind.endswith(".done"):
            grown = _grown(items, event)
            told = event.get("part", event)
            assert all(told[name] == grown[name] for name in grown.keys() & told.keys() - {"type"})
    return items


def _grown(items: list[Any], event: dict[str, Any]) -> Any:
    item = items[event["output_index"]]
    assert item["id"] == event["item_id"]
    return item["content"][event["content_index"]] if "content_index" in event else item


def _grow(grown: Any, event: dict[str, Any], name: str) -> None:
    grown[name] += event["delta"]
    if "logprobs" in event:
        grown["logprobs"] = grown["logprobs"] + event["logprobs"]


def steady(response: dict[str, Any]) -> dict[str, Any]:
    """A response without its ids and times."""
    kept = {name: value for name, value in response.items() if name not in _CHANGING}
    return kept | {"output": [_anonymous(item) for item in response["output"]]}


_CHANGING = ("id", "created_at", "completed_at")


def _anonymous(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("id", "call_id")}
