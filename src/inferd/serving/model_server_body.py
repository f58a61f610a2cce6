"""A request as the body that OpenAI-compatible servers understand. Nothing else of it travels."""

from __future__ import annotations

from typing import Any

from inferd.catalog.card import ModelServer
from inferd.tasks.text_generation import (
    ChatPrompt,
    Constraint,
    Message,
    Sampling,
    TextGenerationRequest,
    TextPrompt,
    ToolUse,
)

_DEFAULTS = Sampling()


def request_body(server: ModelServer, name: str, request: TextGenerationRequest) -> dict[str, Any]:
    """The JSON body; `name`: the card's name, sent unless the server knows another."""
    options: dict[str, bool] = {"include_usage": True}
    if server.continuous_usage:
        options["continuous_usage_stats"] = True
    body: dict[str, Any] = {
        "model": server.model or name,
        "stream": True,
        "stream_options": options,
    }
    prompt = request.prompt
    if isinstance(prompt, ChatPrompt):
        body |= _chat(prompt)
        if request.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
    else:
        body["prompt"] = prompt.text if isinstance(prompt, TextPrompt) else prompt.ids
        if request.logprobs is not None:
            body["logprobs"] = request.logprobs
    for name_ in Sampling.__struct_fields__:
        value = getattr(request.sampling, name_)
        if value != getattr(_DEFAULTS, name_):
            body[name_] = value
    return body | _wishes(request)


def _wishes(request: TextGenerationRequest) -> dict[str, Any]:
    """What was asked for beyond the defaults."""
    asked: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "stop": request.stop,
        "n": None if request.n == 1 else request.n,
        "stop_token_ids": request.stop_token_ids,
        "ignore_eos": request.ignore_eos,
        "echo": request.echo,
        "logit_bias": {str(token): bias for token, bias in request.logit_bias},
        "response_format": _response_format(request.constraint),
    }
    return {name: value for name, value in asked.items() if value}


def _response_format(constraint: Constraint | None) -> dict[str, Any] | None:
    if constraint is None:
        return None
    if constraint.kind == "json_object":
        return {"type": "json_object"}
    if constraint.kind == "regex":
        return {"type": "regex", "regex": constraint.pattern}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": constraint.schema}}


def _chat(prompt: ChatPrompt) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [_message(message) for message in prompt.messages]}
    if prompt.tool_use is not None:
        body |= _tools(prompt.tool_use)
    kwargs = dict(prompt.template_kwargs)
    if kwargs:
        body["chat_template_kwargs"] = kwargs
        if effort := kwargs.get("reasoning_effort"):
            body["reasoning_effort"] = effort
    if prompt.continue_final:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def _tools(use: ToolUse) -> dict[str, Any]:
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters or {"type": "object", "properties": {}},
            },
        }
        for tool in use.tools
    ]
    body: dict[str, Any] = {"tools": tools}
    if use.required:
        named = {"type": "function", "function": {"name": use.tools[0].name}}
        body["tool_choice"] = named if len(use.tools) == 1 else "required"
    if use.parallel is not None:
        body["parallel_tool_calls"] = use.parallel
    return body


def _message(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            shown[name] = value
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return shown
