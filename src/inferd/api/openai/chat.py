"""POST /v1[/openai]/chat/completions (deepinfra-api 4.1, 19)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferd.api import generation, inference
from inferd.api.exchange import Exchange
from inferd.api.generation import template_kwargs, tool_use
from inferd.api.openai.chat_answer import ChatAnswer, ChatHead
from inferd.api.openai.fields import SharedFields, shared_request, stream_options, wish
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import (
    ChatPrompt,
    Message,
    Role,
    TextGenerationRequest,
    Tool,
    ToolCall,
    ToolUse,
)

MESSAGES_MAX = 4096
Hint = Any
"""Accepted and not needed: prefixes are cached by themselves."""


class Part(msgspec.Struct, frozen=True):
    """A piece of a message's content. Only text so far."""

    type: str
    text: str | None = None
    refusal: str | None = None
    prompt_cache_breakpoint: Hint = None
    cache_control: Hint = None


class FunctionCallIn(msgspec.Struct, frozen=True):
    """What was called."""

    name: Annotated[str, Meta(max_length=256)]
    arguments: str = "{}"


class ToolCallIn(msgspec.Struct, frozen=True):
    """A call that the assistant made."""

    function: FunctionCallIn
    id: Annotated[str, Meta(max_length=256)] = ""
    type: Literal["function"] = "function"


class MessageIn(msgspec.Struct, frozen=True):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Meta(max_length=MESSAGES_MAX)] | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None
    tool_calls: Annotated[list[ToolCallIn], Meta(max_length=128)] | None = None
    tool_call_id: Annotated[str, Meta(max_length=256)] | None = None
    reasoning_content: str | None = None
    cache_control: Hint = None


class FunctionIn(msgspec.Struct, frozen=True):
    """A function that may be called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of its arguments; they are always held to it."""
    strict: bool | None = None
    """Refuse a schema with keywords that cannot be enforced, instead of leaving them out."""


class ToolIn(msgspec.Struct, frozen=True):
    """A tool. Only functions."""

    type: str = "function"
    function: FunctionIn | None = None
    cache_control: Hint = None


class FunctionName(msgspec.Struct, frozen=True):
    """Which function."""

    name: str


class ToolChoiceIn(msgspec.Struct, frozen=True):
    """The function that must be called."""

    type: Literal["function"] = "function"
    function: FunctionName | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """How much the model thinks first."""

    effort: str | None = None
    enabled: bool | None = None


class ChatIn(SharedFields, frozen=True, kw_only=True):
    """The request body."""

    messages: Annotated[list[MessageIn], Meta(min_length=1, max_length=MESSAGES_MAX)]
    tools: Annotated[list[ToolIn], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Meta(max_length=16)] | None = None
    continue_final_message: bool | None = None
    functions: Any = None
    """OpenAI's older spelling of tools; refused, with a pointer to `tools`."""
    function_call: Any = None


_DECODER = msgspec.json.Decoder(ChatIn)


async def chat(exchange: Exchange, services: Services) -> None:
    """Answer one chat."""
    wire = await inference.read(exchange, services, _DECODER)
    streaming = stream_options(wire)
    request = to_request(wire)
    asked = wish(wire, request)

    def answer(card: ModelCard) -> ChatAnswer:
        tier = None
        if wire.service_tier is not None:
            tier = card.paid_tier(generation.service_tier(exchange, wire.service_tier))
        return ChatAnswer(
            ChatHead(
                id="chatcmpl-" + exchange.request_id,
                created=services.clock.unix_ns() // 1_000_000_000,
                model=card.name,
                n=request.n,
                options=streaming,
                logprobs=request.logprobs is not None,
                tier=tier,
            )
        )

    await generation.generate(exchange, services, asked, answer)


def to_request(wire: ChatIn) -> TextGenerationRequest:
    """The task's request. Raises BadRequest for what no text model can take."""
    for name in ("functions", "function_call"):
        if getattr(wire, name):
            raise UnsupportedField(f"{name} is not supported: use tools.", param=name)
    continues = bool(wire.continue_final_message)
    if continues and wire.messages[-1].role != "assistant":
        raise BadRequest(
            "continue_final_message needs an assistant's message at the end.",
            param="continue_final_message",
        )
    prompt = ChatPrompt(
        messages=tuple(_message(m, f"messages.{i}") for i, m in enumerate(wire.messages)),
        tool_use=_tool_use(wire),
        template_kwargs=template_kwargs(wire.chat_template_kwargs, _effort(wire)),
        continue_final=continues,
    )
    if wire.top_logprobs and not wire.logprobs:
        raise BadRequest("top_logprobs needs logprobs: true.", param="top_logprobs")
    return shared_request(wire, prompt, logprobs=wire.top_logprobs or 0 if wire.logprobs else None)


def _effort(wire: ChatIn) -> str | None:
    if wire.reasoning_effort is not None:
        return wire.reasoning_effort
    if wire.reasoning is None:
        return None
    return "none" if wire.reasoning.enabled is False else wire.reasoning.effort


def _tool_use(wire: ChatIn) -> ToolUse | None:
    tools: list[Tool] = []
    for index, tool in enumerate(wire.tools or ()):
        if tool.type != "function":
            raise UnsupportedField(
                f"Tools of type {tool.type[:40]!r} are not supported.", param=f"tools.{index}.type"
            )
        if tool.function is None:
            raise BadRequest("function is missing.", param=f"tools.{index}.function")
        function = tool.function
        tools.append(
            Tool(
                function.name,
                function.description or "",
                function.parameters or {},
                bool(function.strict),
            )
        )
    choice = wire.tool_choice
    if isinstance(choice, ToolChoiceIn):
        if choice.function is None:
            raise BadRequest("function is missing.", param="tool_choice.function")
        return tool_use(tools, named=choice.function.name)
    use = tool_use(tools, required=choice == "required", parallel=wire.parallel_tool_calls)
    return None if choice == "none" else use


def _message(message: MessageIn, at: str) -> Message:
    if message.content is None and message.role != "assistant":
        raise BadRequest("content is missing.", param=f"{at}.content")
    if message.role == "tool" and message.tool_call_id is None:
        raise BadRequest("tool_call_id is missing.", param=f"{at}.tool_call_id")
    if message.tool_calls and message.role != "assistant":
        raise BadRequest("Only the assistant calls tools.", param=f"{at}.tool_calls")
    # OpenAI's newer name for system.
    role: Role = "system" if message.role == "developer" else message.role
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
    )
    return Message(
        role,
        _text(message, at),
        message.name,
        calls,
        message.tool_call_id,
        message.reasoning_content,
    )


def _text(message: MessageIn, at: str) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    texts: list[str] = []
    for index, part in enumerate(message.content):
        if part.type not in ("text", "refusal"):
            raise UnsupportedField(
                f"Content parts of type {part.type[:40]!r} are not supported by this model, "
                "which reads text.",
                param=f"{at}.content.{index}.type",
            )
        text = part.refusal if part.type == "refusal" else part.text
        if text is None:
            raise BadRequest("text is missing.", param=f"{at}.content.{index}.text")
        texts.append(text)
    return "".join(texts)
