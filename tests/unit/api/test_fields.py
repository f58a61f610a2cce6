"""No field of the contract is ignored in silence."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inferd.api.openai.chat import ChatIn, to_request
from inferd.api.openai.fields import refuse_unsupported
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import ChatPrompt, Sampling

BASE: dict[str, Any] = {"model": "a/b", "messages": [{"role": "user", "content": "hi"}]}


def chat(**fields: Any) -> ChatIn:
    return msgspec.json.decode(msgspec.json.encode(BASE | fields), type=ChatIn)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"1": 2}),
        ("stop_token_ids", [1]),
        ("reasoning_effort", "high"),
        ("reasoning", {"enabled": True}),
        ("service_tier", "priority"),
        ("fail_fast", True),
        ("models", ["a/b"]),
        ("ignore_eos", True),
        ("chat_template_kwargs", {"a": 1}),
        ("continue_final_message", True),
        ("prompt_cache_key", "k"),
        ("prompt_cache_options", {"mode": "explicit"}),
        ("functions", [{"name": "f"}]),
        ("logprobs", 0),
    ],
)
def test_a_field_that_is_not_honoured_yet_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UnsupportedField) as caught:
        refuse_unsupported(chat(**{name: value}))
    assert caught.value.param == name
    assert name in caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {
            "tools": [],
            "tool_choice": "auto",
            "logprobs": False,
            "response_format": {"type": "text"},
        },
        {"tools": None, "logit_bias": {}, "service_tier": "default", "reasoning_effort": None},
        {"store": True, "metadata": {"a": "b"}, "parallel_tool_calls": True},
    ],
)
def test_a_value_that_asks_for_nothing_is_welcome(fields: dict[str, Any]) -> None:
    refuse_unsupported(chat(**fields))


def test_null_means_the_default() -> None:
    request = to_request(chat(temperature=None, top_p=None, n=None, stop=None), cache_scope="acc")
    assert request.sampling == Sampling()
    assert (request.n, request.stop, request.max_tokens) == (1, (), None)


def test_every_sampling_field_reaches_the_request() -> None:
    asked = {
        "temperature": 0.5,
        "top_p": 0.6,
        "top_k": 7,
        "min_p": 0.1,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "repetition_penalty": 1.2,
        "seed": 9,
    }
    request = to_request(chat(**asked), cache_scope="")
    assert msgspec.to_builtins(request.sampling) == asked


def test_a_seed_has_64_bits() -> None:
    assert to_request(chat(seed=2**64 - 1), cache_scope="").sampling.seed == 2**64 - 1
    with pytest.raises(BadRequest, match="seed"):
        to_request(chat(seed=2**64), cache_scope="")


def test_parts_are_joined_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = to_request(chat(messages=[{"role": "developer", "content": parts}]), cache_scope="")
    assert isinstance(request.prompt, ChatPrompt)
    assert request.prompt.messages[0].role == "system"
    assert request.prompt.messages[0].content == "ab"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages.0.content.0.type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content.0.text"),
        ({"role": "user", "content": None}, "messages.0.content"),
        ({"role": "tool", "content": "x", "tool_call_id": "c"}, "messages.0.role"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "messages.0.tool_calls"),
        (
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
            "messages.0.reasoning_content",
        ),
        (
            {"role": "user", "content": "x", "cache_control": {"type": "ephemeral"}},
            "messages.0.cache_control",
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
                ],
            },
            "messages.0.content.0.prompt_cache_breakpoint",
        ),
    ],
)
def test_content_that_is_not_text_is_refused_with_its_place(
    message: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        to_request(chat(messages=[message]), cache_scope="")
    assert caught.value.param == param
