"""POST /v1[/openai]/chat/completions (deepinfra-api 4.1, 19)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferd.api import generation, inference
from inferd.api.exchange import Exchange
from inferd.api.generation import template_kwargs, tool_use
from inferd.api.openai.chat_answer import ChatAnswer, ChatHead
from inferd.api.openai.fields import SharedFields, shared_request, stream_options, wish
from inferd.api.parts import NOTHING_TAKEN, Content, MediaPart, Taken, take_parts
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.media import MediaKind
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


class UrlIn(msgspec.Struct, frozen=True):
    """Where a picture, recording or film is: http(s) or a data URL."""

    url: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None
    """Accepted without effect, as at DeepInfra: the model decides how fine it looks."""


class AudioIn(msgspec.Struct, frozen=True):
    """A recording in base64."""

    data: str | None = None
    format: str | None = None
    """Not needed: what it is shows in its bytes."""


class FileIn(msgspec.Struct, frozen=True):
    """A picture, recording or film; which of them shows in its bytes."""

    file_data: str | None = None
    """A data URL, or bare base64."""
    file_id: str | None = None
    """Not supported: no files are stored."""
    filename: str | None = None


class Part(msgspec.Struct, frozen=True):
    """A piece of a message's content: text, or what the model can see or hear."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: UrlIn | str | None = None
    audio_url: UrlIn | str | None = None
    video_url: UrlIn | str | None = None
    input_audio: AudioIn | None = None
    file: FileIn | None = None
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
    wire = await inference.read_cut(exchange, services, _DECODER)
    streaming = stream_options(wire)
    models = generation.fallbacks(wire.model, wire.models)
    request = to_request(wire, await take_parts(exchange, services, models, media_parts(wire)))
    asked = wish(wire, request)

    def answer(card: ModelCard) -> ChatAnswer:
        tier = None
        if wire.service_tier is not None:
            asked_tier = generation.service_tier(exchange, wire.service_tier)
            tier = services.prices.current(card.name).paid_tier(asked_tier)
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


_KINDS: dict[str, MediaKind] = {
    "image_url": "image",
    "audio_url": "audio",
    "input_audio": "audio",
    "video_url": "video",
}


def media_parts(wire: ChatIn) -> Iterator[MediaPart]:
    """What its messages hold besides text."""
    for index, message in enumerate(wire.messages):
        if isinstance(message.content, list):
            for place, part in enumerate(message.content):
                if message.role == "user" and (part.type in _KINDS or _is_file(part)):
                    yield _media_part(part, f"messages.{index}.content.{place}")


def _is_file(part: Part) -> bool:
    return part.type == "file" and part.file is not None and part.file.file_data is not None


def _media_part(part: Part, at: str) -> MediaPart:
    if part.type == "file" and part.file is not None:
        return MediaPart(at, None, part.file.file_data, "file.file_data")
    kind = _KINDS[part.type]
    if part.type == "input_audio":
        data = part.input_audio.data if part.input_audio is not None else None
        return MediaPart(at, kind, data, "input_audio.data")
    given: UrlIn | str | None = getattr(part, part.type)
    url = given.url if isinstance(given, UrlIn) else given
    return MediaPart(at, kind, url, f"{part.type}.url")


def to_request(wire: ChatIn, taken: Taken = NOTHING_TAKEN) -> TextGenerationRequest:
    """The task's request. Raises BadRequest for what is neither text nor taken."""
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
        messages=tuple(_message(m, f"messages.{i}", taken) for i, m in enumerate(wire.messages)),
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


def _message(message: MessageIn, at: str, taken: Taken) -> Message:
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
    content = _content(message, at, taken)
    return Message(
        role,
        content if isinstance(content, str) else content.text,
        message.name,
        calls,
        message.tool_call_id,
        message.reasoning_content,
        () if isinstance(content, str) else content.media,
    )


def _content(message: MessageIn, at: str, taken: Taken) -> str | Content:
    if not isinstance(message.content, list):
        return message.content or ""
    if not taken:
        parts = enumerate(message.content)
        return "".join([_text(part, message.role, at, index) for index, part in parts])
    content = Content()
    for index, part in enumerate(message.content):
        place = f"{at}.content.{index}"
        if place in taken:
            content.show(taken[place])
        else:
            content.say(_text(part, message.role, at, index))
    return content


def _text(part: Part, role: str, at: str, index: int) -> str:
    if part.type not in ("text", "refusal"):
        raise UnsupportedField(
            f"Content parts of type {part.type[:40]!r} are not supported "
            f"in messages of the role {role}.",
            param=f"{at}.content.{index}.type",
        )
    text = part.refusal if part.type == "refusal" else part.text
    if text is None:
        raise BadRequest("text is missing.", param=f"{at}.content.{index}.text")
    return text
