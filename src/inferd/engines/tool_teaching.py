"""Teaches tools to a model whose own template knows none: as text, the way Hermes models learnt it.

The same markup comes back from every model, so one parser reads all of them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.engines.answer_parser import CALL_CLOSE, CALL_OPEN
from inferd.tasks.text_generation import ChatPrompt, Message, Tool, ToolUse

_LESSON = """You can call functions. Each line here describes one, as JSON:
{tools}
To call a function, write nothing but this, with the function's own name and arguments:
{open}
{{"name": "function", "arguments": {{"argument": "value"}}}}
{close}
{duty}"""
_FREE = "Call one only if it helps to answer; otherwise answer in words."
_MUST = "You must call one now."


def teach(prompt: ChatPrompt) -> tuple[Message, ...]:
    """The messages with tools, calls and results turned into text."""
    messages: list[Message] = []
    for message in prompt.messages:
        plain = _plain(message)
        last = messages[-1] if messages else None
        if message.role == "tool" and last is not None and last.content.endswith(_RESULT_CLOSE):
            # Results of parallel calls come in one turn.
            joined = f"{last.content}\n{plain.content}"
            messages[-1] = msgspec.structs.replace(last, content=joined)
        else:
            messages.append(plain)
    if prompt.tool_use is None:
        return tuple(messages)
    lesson = _lesson(prompt.tool_use)
    if messages and messages[0].role == "system":
        joined = f"{messages[0].content}\n\n{lesson}"
        messages[0] = msgspec.structs.replace(messages[0], content=joined)
        return tuple(messages)
    return (Message("system", lesson), *messages)


_RESULT_OPEN, _RESULT_CLOSE = "<tool_response>\n", "\n</tool_response>"


def _plain(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"{_RESULT_OPEN}{message.content}{_RESULT_CLOSE}")
    if not message.tool_calls:
        return message
    calls = [
        f'{CALL_OPEN}\n{{"name": "{call.name}", "arguments": {call.arguments or "{}"}}}\n'
        + CALL_CLOSE
        for call in message.tool_calls
    ]
    texts = [message.content, *calls] if message.content else calls
    return Message("assistant", "\n".join(texts), message.name)


def _lesson(use: ToolUse) -> str:
    return _LESSON.format(
        tools="\n".join(msgspec.json.encode(_described(tool)).decode() for tool in use.tools),
        open=CALL_OPEN,
        close=CALL_CLOSE,
        duty=_MUST if use.required else _FREE,
    )


def _described(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
