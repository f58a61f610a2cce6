"""Every field of the contract has its effect, or is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inferd.api.openai.chat import ChatIn, to_request
from inferd.errors import BadRequest
from inferd.tasks.text_generation import ChatPrompt, Constraint, Sampling, Tool, ToolUse

BASE: dict[str, Any] = {"model": "a/b", "messages": [{"role": "user", "content": "hi"}]}


def chat(**fields: Any) -> ChatIn:
    return msgspec.json.decode(msgspec.json.encode(BASE | fields), type=ChatIn)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options.mode"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"function": {"name": "f"}}] * 2}, "tools"),
        ({"tool_choice": "required"}, "tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"response_format": {"type": "regex"}}, "response_format.regex"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"continue_final_message": True}, "continue_final_message"),
    ],
)
def test_what_cannot_have_its_effect_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        to_request(chat(**fields))
    assert caught.value.param == param


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
def test_a_value_that_asks_for_nothing_changes_nothing(fields: dict[str, Any]) -> None:
    assert to_request(chat(**fields)) == to_request(chat())


def test_every_field_reaches_the_request() -> None:
    schema = {"type": "object"}
    request = to_request(
        chat(
            tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}],
            tool_choice="required",
            parallel_tool_calls=False,
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
            logprobs=True,
            top_logprobs=4,
            logit_bias={"7": -1.5},
            stop_token_ids=[3],
            ignore_eos=True,
            reasoning_effort="none",
            chat_template_kwargs={"enable_thinking": True},
            prompt_cache_key="k",
        )
    )
    assert isinstance(request.prompt, ChatPrompt)
    assert request.prompt.tool_use == ToolUse(
        (Tool("f", "", schema),), required=True, parallel=False
    )
    assert request.prompt.template_kwargs == {
        "enable_thinking": True,
        "thinking": False,
        "reasoning_effort": "none",
    }
    assert request.constraint == Constraint("json_schema", schema)
    assert (request.logprobs, request.logit_bias) == (4, ((7, -1.5),))
    assert (request.stop_token_ids, request.ignore_eos, request.cache_key) == ((3,), True, "k")


def test_a_named_tool_is_the_only_one_and_required() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    choice = {"type": "function", "function": {"name": "g"}}
    prompt = to_request(chat(tools=tools, tool_choice=choice)).prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tool_use == ToolUse((Tool("g"),), required=True, parallel=False)


def test_null_means_the_default() -> None:
    request = to_request(chat(temperature=None, top_p=None, n=None, stop=None))
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
    request = to_request(chat(**asked))
    assert msgspec.to_builtins(request.sampling) == asked


def test_a_seed_has_64_bits() -> None:
    assert to_request(chat(seed=2**64 - 1)).sampling.seed == 2**64 - 1
    with pytest.raises(BadRequest, match="seed"):
        to_request(chat(seed=2**64))


def test_parts_are_joined_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = to_request(chat(messages=[{"role": "developer", "content": parts}]))
    assert isinstance(request.prompt, ChatPrompt)
    assert request.prompt.messages[0].role == "system"
    assert request.prompt.messages[0].content == "ab"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages.0.content.0.type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content.0.text"),
        ({"role": "user", "content": None}, "messages.0.content"),
        ({"role": "tool", "content": "x"}, "messages.0.tool_call_id"),
        (
            {"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]},
            "messages.0.tool_calls",
        ),
    ],
)
def test_content_that_is_not_text_is_refused_with_its_place(
    message: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        to_request(chat(messages=[message]))
    assert caught.value.param == param
