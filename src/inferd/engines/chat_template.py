"""Renders messages with the model's own template, in a sandbox.

Templates come out of model files, so they are code from a stranger: immutable sandbox, no
attribute of Python, bounded loops and output. What a template refuses becomes a BadRequest.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
from jinja2 import TemplateError

from inferd.engines.answer_parser import CALL_OPEN, THINK_CLOSE, THINK_OPEN
from inferd.engines.template_sandbox import Sandbox
from inferd.engines.tool_teaching import teach
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.text_generation import ChatPrompt, Message, Tool

_REFUSALS = (
    *(TemplateError, TypeError, ValueError, ArithmeticError, LookupError),
    *(RecursionError, MemoryError),
)
OUTPUT_CHARACTERS_MAX = 32 * 1024 * 1024
PLAIN = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""For base models without a template."""


_CUT = "\u2063\u2063inferd-continues-here\u2063\u2063"
"""Marks where a message that is to be continued ends in the rendered text."""


class Rendered(msgspec.Struct, frozen=True):
    """A prompt, ready for the answer to begin."""

    text: str
    in_thought: bool
    """The text ends inside the model's thinking."""


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str | None, *, bos_token: str = "", eos_token: str = "") -> None:
        environment = self._environment = Sandbox()
        offered: dict[str, Any] = environment.globals
        offered |= {"raise_exception": _raise, "strftime_now": _strftime_now}
        environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": False}
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        text = source or PLAIN
        self.knows_tools = CALL_OPEN in text and "tools" in text
        """It shows tools itself, and asks for calls in the markup that the parser reads."""
        self.thinks = THINK_CLOSE in text
        """The model thinks before it answers."""
        try:
            self._template = environment.compiled(text)
        except (TemplateError, RecursionError, MemoryError) as error:
            raise EngineFailed("The model's chat template is broken.", detail=str(error)) from error

    def render(self, prompt: ChatPrompt) -> Rendered:
        """The prompt text. Raises BadRequest for messages that the template refuses."""
        messages = prompt.messages if self.knows_tools else teach(prompt)
        shown = [_shown(message) for message in messages]
        if prompt.continue_final:
            shown[-1]["content"] += _CUT
        variables: dict[str, Any] = {**prompt.template_kwargs, **self._tokens}
        if prompt.tool_use is not None and self.knows_tools:
            variables["tools"] = [_tool(tool) for tool in prompt.tool_use.tools]
        text = self._generate(shown, variables, opens_answer=not prompt.continue_final)
        if prompt.continue_final:
            text, found, _ = text.rpartition(_CUT)
            if not found:
                raise BadRequest(
                    "This model's template cannot continue a message.",
                    param="continue_final_message",
                )
        return Rendered(text, self.thinks and text.rstrip().endswith(THINK_OPEN))

    def _generate(
        self, shown: list[dict[str, Any]], variables: dict[str, Any], *, opens_answer: bool
    ) -> str:
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(
                messages=shown,
                add_generation_prompt=opens_answer,
                **variables,
                **self._environment.budget(),
            ):
                size += len(piece)
                if size > OUTPUT_CHARACTERS_MAX:
                    raise BadRequest("The chat template makes too much of these messages.")
                pieces.append(piece)
        except _REFUSALS as error:
            reason = str(error)[:200]
            raise BadRequest(
                f"The model's chat template refuses these messages: {reason}", param="messages"
            ) from error
        return "".join(pieces)


def _shown(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        shown["name"] = message.name
    if message.reasoning_content is not None:
        shown["reasoning_content"] = message.reasoning_content
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return shown


def _arguments(text: str) -> Any:
    """Templates print arguments as JSON, so they get the object; what is none stays text."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _tool(tool: Tool) -> dict[str, Any]:
    described = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": described}


def _raise(reason: str) -> NoReturn:
    raise TemplateError(reason)


def _strftime_now(layout: str) -> str:
    return datetime.now(UTC).strftime(layout)  # noqa: TID251 the template asks for today's date
