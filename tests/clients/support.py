"""What the tests of clients share: loading a client, a tool, a schema, looking at answers."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from tests.process import InferdProcess

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
"""Short, so that a small model that rambles still closes its braces."""

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": WEATHER,
    },
}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


def package(name: str) -> Any:
    """Import a client, or skip: it lives in another environment of `make clients`.

    What it complains about while it is imported is its own affair.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def openai_base(server: InferdProcess) -> str:
    """The base URL of OpenAI's routes."""
    return f"{server.url}/v1/openai"


def assert_city(arguments: str) -> None:
    """The arguments of a call are JSON that fits WEATHER."""
    said = json.loads(arguments)
    assert list(said) == ["city"]
    assert isinstance(said["city"], str)
