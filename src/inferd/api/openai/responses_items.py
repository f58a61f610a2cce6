"""Input items of the Responses API become chat messages.

Items are finer than messages: reasoning, text and calls of one turn are items of their own. All
that stand together become one assistant message.
"""

from __future__ import annotations

from inferd.api.openai.responses_in import InputItem, InputPart, ResponseIn
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import Message, ToolCall

_REFUSED = {
    "input_image": "Images are not supported by this model.",
    "input_file": "Files are not supported by this model.",
    "input_audio": "Audio is not supported by this model.",
}
_SPOKEN = ("input_text", "output_text", "refusal")
_THOUGHT = ("reasoning_text", "summary_text")


def to_messages(wire: ResponseIn) -> tuple[Message, ...]:
    """Instructions and input as messages. Raises BadRequest with the path of what is wrong."""
    conversation = _Conversation()
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

    def __init__(self) -> None:
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
        text = _text(item.content, f"{at}.content", _SPOKEN)
        if item.role == "assistant":
            self._in_turn = True
            self._texts.append(text)
            return
        self.close()
        # OpenAI's newer name for system.
        self.messages.append(Message("system" if item.role == "developer" else item.role, text))

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


def _text(content: str | list[InputPart], at: str, kinds: tuple[str, ...]) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for index, part in enumerate(content):
        if part.type not in kinds:
            shown = f"Content parts of type {part.type[:40]!r} are not supported here."
            sentence = _REFUSED.get(part.type, shown)
            raise UnsupportedField(sentence, param=f"{at}.{index}.type")
        name = "refusal" if part.type == "refusal" else "text"
        text: str | None = getattr(part, name)
        if text is None:
            raise BadRequest(f"{name} is missing.", param=f"{at}.{index}.{name}")
        texts.append(text)
    return "".join(texts)
