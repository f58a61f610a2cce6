"""Anthropic's messages, system prompt, tools and thinking as one ChatPrompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from inferd.api import generation
from inferd.api.anthropic.wire import (
    AnthropicTool,
    Block,
    CountTokensIn,
    OutputConfig,
    Source,
    TextBlock,
    Thinking,
    Turn,
)
from inferd.api.parts import NOTHING_TAKEN, Content, MediaPart, Taken, moved
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import ChatPrompt, Message, Role, Tool, ToolCall, ToolUse

BILLING_HEADER = "x-anthropic-billing-header:"
"""Claude Code begins its system prompt with a line of this name that differs in every request. It
means nothing to a model, and no prefix could be reused behind it, so the line is left out."""

_TAKES = {
    "user": ("text", "image", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
"""Role → the kinds of blocks in its messages."""

_IDS_OUT, _IDS_HERE = "toolu_", "call_"


def shown_call_id(call_id: str) -> str:
    """A call's id as Anthropic's clients see it."""
    if call_id.startswith(_IDS_HERE):
        return _IDS_OUT + call_id.removeprefix(_IDS_HERE)
    return call_id


def own_call_id(shown: str) -> str:
    """The id behind `shown_call_id`; one that was not made here stays."""
    if shown.startswith(_IDS_OUT):
        return _IDS_HERE + shown.removeprefix(_IDS_OUT)
    return shown


def media_parts(wire: CountTokensIn) -> Iterator[MediaPart]:
    """The pictures in its messages."""
    for index, turn in enumerate(wire.messages):
        if isinstance(turn.content, list) and turn.role == "user":
            for place, block in enumerate(turn.content):
                if block.type == "image":
                    yield _media_part(block.source, f"messages.{index}.content.{place}")


def _media_part(source: Source | None, at: str) -> MediaPart:
    if source is None or source.type not in ("base64", "url"):
        raise UnsupportedField(
            f"{at}.source.type is base64 or url: files are not stored here.",
            param=f"{at}.source.type",
        )
    field = "url" if source.type == "url" else "data"
    given = source.url if field == "url" else source.data
    return MediaPart(at, "image", given, f"source.{field}")


def chat_prompt(wire: CountTokensIn, taken: Taken = NOTHING_TAKEN) -> ChatPrompt:
    """The prompt. Raises BadRequest that names the block or tool it is about."""
    messages: list[Message] = []
    if system := _system(wire):
        messages.append(Message("system", system))
    for index, turn in enumerate(wire.messages):
        for message in _messages(turn, f"messages.{index}", taken):
            _append(messages, message)
    begun = messages[-1].role == "assistant"
    if begun and messages[-1].tool_calls:
        raise BadRequest(
            "The last message calls tools: their results must follow as tool_result blocks.",
            param="messages",
        )
    if begun and not messages[-1].content and len(messages) > 1:
        # It begins nothing.
        messages.pop()
        begun = False
    return ChatPrompt(
        tuple(messages),
        tool_use=_tool_use(wire),
        template_kwargs=_template_kwargs(wire.thinking, wire.output_config),
        continue_final=begun,
    )


def _append(messages: list[Message], message: Message) -> None:
    """Neighbours of one role become one turn, as at Anthropic; templates insist on it."""
    last = messages[-1] if messages else None
    if last is None or last.role != message.role or message.role == "tool":
        messages.append(message)
        return
    thoughts = [text for text in (last.reasoning_content, message.reasoning_content) if text]
    text = _joined([last.content, message.content], "\n\n" if message.role == "system" else "\n")
    messages[-1] = Message(
        message.role,
        text,
        tool_calls=last.tool_calls + message.tool_calls,
        reasoning_content="\n".join(thoughts) or None,
        media=last.media + moved(message.media, len(text) - len(message.content)),
    )


def _joined(texts: Sequence[str], between: str) -> str:
    return between.join(text for text in texts if text)


def _system(wire: CountTokensIn) -> str:
    if wire.system is None:
        return ""
    if isinstance(wire.system, str):
        return _without_billing(wire.system)
    texts = [_text(block, f"system.{index}") for index, block in enumerate(wire.system)]
    return _joined([_without_billing(text) for text in texts], "\n\n")


def _without_billing(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(BILLING_HEADER) else text


def _messages(turn: Turn, at: str, taken: Taken) -> list[Message]:
    """Results of tools first, each a message of its own, then what else is in the turn."""
    role: Role = turn.role
    if isinstance(turn.content, str):
        return [Message(role, turn.content)]
    results: list[Message] = []
    content = Content()
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for index, block in enumerate(turn.content):
        place = f"{at}.content.{index}"
        _check_kind(block, role, place)
        if block.type in ("text", "image"):
            _speak(content, block, place, taken)
        elif block.type == "tool_result":
            results.append(_result(block, place))
        elif block.type == "tool_use":
            calls.append(_call(block, place))
        elif block.thinking:
            thoughts.append(block.thinking)
    if results and not content.text and not content.media:
        return results
    message = Message(
        role,
        content.text,
        tool_calls=tuple(calls),
        reasoning_content="\n".join(thoughts) or None,
        media=content.media,
    )
    return [*results, message]


def _speak(content: Content, block: Block, at: str, taken: Taken) -> None:
    if block.type == "text":
        content.say(_text(block, at), "\n")
    elif at in taken:
        content.show(taken[at])
    else:
        _refuse_kind(block, at)


def _check_kind(block: Block, role: Role, at: str) -> None:
    if block.type in _TAKES[role]:
        return
    kind = block.type[:40]
    if any(kind in kinds for kinds in _TAKES.values()):
        raise BadRequest(
            f"{at}: A message of the role {role} has no {kind} blocks.", param=f"{at}.type"
        )
    _refuse_kind(block, at)


def _refuse_kind(block: TextBlock, at: str) -> None:
    raise UnsupportedField(
        f"{at}: Blocks of type {block.type[:40]!r} are not supported here; text is.",
        param=f"{at}.type",
    )


def _text(block: TextBlock, at: str) -> str:
    if block.type != "text":
        _refuse_kind(block, at)
    return _given(block.text, f"{at}.text")


def _given(value: str | None, at: str) -> str:
    if value is None:
        raise BadRequest(f"{at} is missing.", param=at)
    return value


def _result(block: Block, at: str) -> Message:
    call_id = own_call_id(_given(block.tool_use_id, f"{at}.tool_use_id"))
    if isinstance(block.content, list):
        parts = [_text(part, f"{at}.content.{i}") for i, part in enumerate(block.content)]
        text = _joined(parts, "\n")
    else:
        text = block.content or ""
    if block.is_error:
        # Templates know no failed results, so the text says it.
        text = f"Error: {text}"
    return Message("tool", text, tool_call_id=call_id)


def _call(block: Block, at: str) -> ToolCall:
    return ToolCall(
        id=own_call_id(_given(block.id, f"{at}.id")),
        name=_given(block.name, f"{at}.name"),
        arguments=msgspec.json.encode(block.input or {}).decode(),
    )


def _tool_use(wire: CountTokensIn) -> ToolUse | None:
    tools = [_tool(tool, f"tools.{index}") for index, tool in enumerate(wire.tools or ())]
    choice = wire.tool_choice
    if choice is None:
        return generation.tool_use(tools)
    if choice.type == "none":
        return None
    named = _given(choice.name, "tool_choice.name") if choice.type == "tool" else None
    return generation.tool_use(
        tools,
        required=choice.type == "any",
        named=named,
        parallel=False if choice.disable_parallel_tool_use else None,
    )


def _tool(tool: AnthropicTool, at: str) -> Tool:
    if tool.type not in (None, "custom"):
        raise UnsupportedField(
            f"{at}: Tools of type {tool.type[:64]!r} are not supported; only custom tools, "
            "with an input_schema, are.",
            param=f"{at}.type",
        )
    if tool.input_schema is None:
        raise BadRequest(f"{at}.input_schema is missing.", param=f"{at}.input_schema")
    name = _given(tool.name, f"{at}.name")
    return Tool(name, tool.description or "", tool.input_schema)


def _template_kwargs(
    thinking: Thinking | None, config: OutputConfig | None
) -> dict[str, str | int | bool]:
    effort = None if config is None else config.effort
    if thinking is None:
        return generation.template_kwargs(None, effort)
    thinks = thinking.type != "disabled" if thinking.type else thinking.enabled
    if thinks is None:
        raise BadRequest("thinking.type is missing.", param="thinking.type")
    return generation.template_kwargs(None, (effort or "medium") if thinks else "none")
