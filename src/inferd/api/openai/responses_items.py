"""Input items of the Responses API become chat messages.

Items are finer than messages: reasoning, text and calls of one turn are items of their own. All
that stand together become one assistant message.
"""

from __future__ import annotations

from collections.abc import Iterator

from inferd.api.openai.responses_in import InputItem, InputPart, ResponseIn
from inferd.api.parts import NOTHING_TAKEN, Content, MediaPart, Taken
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import Message, Role, ToolCall

_REFUSED = {
    "input_image": "Images are supported in messages of the user.",
    "input_file": "Files are supported in messages of the user, where they are pictures.",
    "input_audio": "Audio is not supported here.",
}
_SPOKEN = ("input_text", "output_text", "refusal")
_THOUGHT = ("reasoning_text", "summary_text")


def to_messages(wire: ResponseIn, taken: Taken = NOTHING_TAKEN) -> tuple[Message, ...]:
    """Instructions and input as messages. Raises BadRequest with the path of what is wrong."""
    conversation = _Conversation(taken)
    if wire.instructions:
        conversation.messages.append(Message("system", wire.instructions))
    if isinstance(wire.input, str):
        conversation.messages.append(Message("user", wire.input))
    else:
        for index, item in enumerate(wire.input):
            conversation.add(item, f"input.{index}")
    conversation.close()
    return tuple(conversation.messages)


class _Conversation:
    """Messages so far, and an assistant's turn that may go on."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self.messages: list[Message] = []
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._in_turn = False
        self._called: set[str] = set()

    def add(self, item: InputItem, at: str) -> None:
        """Take the next item."""
        kind = item.type or ("message" if item.role is not None else None)
        if kind is None:
            raise BadRequest("type is missing.", param=f"{at}.type")
        if kind == "item_reference":
            raise UnsupportedField(
                "Items cannot be referred to: nothing is stored here.", param=f"{at}.type"
            )
        take = {
            "message": self._message,
            "reasoning": self._reasoning,
            "function_call": self._call,
            "function_call_output": self._output,
        }.get(kind)
        if take is None:
            raise UnsupportedField(f"Items of type {kind!r} are not supported.", param=f"{at}.type")
        take(item, at)

    def close(self) -> None:
        """End the assistant's turn, if one is open."""
        if self._in_turn:
            message = Message(
                "assistant",
                "\n".join(self._texts),
                tool_calls=tuple(self._calls),
                reasoning_content="\n".join(self._thoughts) or None,
            )
            self.messages.append(message)
        self._texts, self._thoughts, self._calls = [], [], []
        self._in_turn = False

    def _message(self, item: InputItem, at: str) -> None:
        if item.role is None:
            raise BadRequest("role is missing.", param=f"{at}.role")
        if item.content is None:
            raise BadRequest("content is missing.", param=f"{at}.content")
        if item.role == "assistant":
            text = _text(item.content, f"{at}.content", _SPOKEN)
            self._in_turn = True
            self._texts.append(text)
            return
        # OpenAI's newer name for system.
        role: Role = "system" if item.role == "developer" else item.role
        if isinstance(item.content, str):
            message = Message(role, item.content)
        else:
            content = _content(item.content, f"{at}.content", _SPOKEN, self._taken)
            message = Message(role, content.text, media=content.media)
        self.close()
        self.messages.append(message)

    def _reasoning(self, item: InputItem, at: str) -> None:
        if item.content:
            thought = _text(item.content, f"{at}.content", _THOUGHT)
        else:
            thought = _text(item.summary or [], f"{at}.summary", _THOUGHT)
        if thought:
            self._in_turn = True
            self._thoughts.append(thought)

    def _call(self, item: InputItem, at: str) -> None:
        for name in ("call_id", "name"):
            if not getattr(item, name):
                raise BadRequest(f"{name} is missing.", param=f"{at}.{name}")
        if not isinstance(item.arguments, str):
            raise BadRequest("arguments is JSON text.", param=f"{at}.arguments")
        call = ToolCall(item.call_id or "", item.name or "", item.arguments)
        self._in_turn = True
        self._calls.append(call)
        self._called.add(call.id)

    def _output(self, item: InputItem, at: str) -> None:
        if item.call_id not in self._called:
            raise BadRequest(
                "No function_call before this one has its call_id.", param=f"{at}.call_id"
            )
        if item.output is None or isinstance(item.output, dict):
            raise BadRequest("output is text or a list of parts.", param=f"{at}.output")
        text = _text(item.output, f"{at}.output", _SPOKEN)
        self.close()
        self.messages.append(Message("tool", text, tool_call_id=item.call_id))


def media_parts(wire: ResponseIn) -> Iterator[MediaPart]:
    """The pictures in messages of the input."""
    if isinstance(wire.input, str):
        return
    for index, item in enumerate(wire.input):
        if isinstance(item.content, list) and item.role == "user":
            for place, part in enumerate(item.content):
                if part.type in ("input_image", "input_file"):
                    yield _media_part(part, f"input.{index}.content.{place}")


def _media_part(part: InputPart, at: str) -> MediaPart:
    if part.file_id is not None:
        raise UnsupportedField(
            "Files are not stored here: there are no ids.", param=f"{at}.file_id"
        )
    if part.type == "input_image":
        return MediaPart(at, "image", part.image_url, "image_url")
    if part.file_url is not None:
        return MediaPart(at, "image", part.file_url, "file_url")
    return MediaPart(at, "image", part.file_data, "file_data")


def _text(content: str | list[InputPart], at: str, kinds: tuple[str, ...]) -> str:
    if isinstance(content, str):
        return content
    return _content(content, at, kinds, NOTHING_TAKEN).text


def _content(parts: list[InputPart], at: str, kinds: tuple[str, ...], taken: Taken) -> Content:
    content = Content()
    for index, part in enumerate(parts):
        place = f"{at}.{index}"
        if place in taken:
            content.show(taken[place])
            continue
        if part.type not in kinds:
            shown = f"Content parts of type {part.type[:40]!r} are not supported here."
            sentence = _REFUSED.get(part.type, shown)
            raise UnsupportedField(sentence, param=f"{place}.type")
        name = "refusal" if part.type == "refusal" else "text"
        text: str | None = getattr(part, name)
        if text is None:
            raise BadRequest(f"{name} is missing.", param=f"{place}.{name}")
        content.say(text)
    return content
