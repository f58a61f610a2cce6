"""Renders messages with the model's own template, in a sandbox.

Templates come out of model files, so they are code from a stranger: immutable sandbox, no
attribute of Python, bounded loops and output. What a template refuses becomes a BadRequest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.text_generation import Message

OUTPUT_CHARACTERS_MAX = 32 * 1024 * 1024
PLAIN = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""For base models without a template."""


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str | None, *, bos_token: str = "", eos_token: str = "") -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        offered: dict[str, Any] = environment.globals
        offered |= {"raise_exception": _raise, "strftime_now": _strftime_now}
        environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = environment.from_string(source or PLAIN)
        except TemplateError as error:
            raise EngineFailed("The model's chat template is broken.", detail=str(error)) from error

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt text, ready for the answer to begin."""
        shown: list[dict[str, Any]] = [_shown(message) for message in messages]
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(
                messages=shown, add_generation_prompt=True, **self._tokens
            ):
                size += len(piece)
                if size > OUTPUT_CHARACTERS_MAX:
                    raise BadRequest("The chat template makes too much of these messages.")
                pieces.append(piece)
        except (TemplateError, TypeError, ValueError, OverflowError) as error:
            reason = str(error)[:200]
            raise BadRequest(
                f"The model's chat template refuses these messages: {reason}", param="messages"
            ) from error
        return "".join(pieces)


def _shown(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        shown["name"] = message.name
    return shown


def _raise(reason: str) -> NoReturn:
    raise TemplateError(reason)


def _strftime_now(layout: str) -> str:
    return datetime.now(UTC).strftime(layout)  # noqa: TID251 the template asks for today's date
