"""Says an answer as a chat completion, whole or in chunks."""

from __future__ import annotations

import msgspec

from inferd.admission.work import Work
from inferd.api.errors import stream_event
from inferd.api.openai.fields import StreamOptions
from inferd.api.openai.logprobs import ChatLogprobs, chat_logprobs
from inferd.api.openai.usage import UsageOut, usage_out
from inferd.errors import InferdError
from inferd.tasks.text_generation import CallDelta, Done, FinishReason, Text, Token


class FunctionOut(msgspec.Struct, frozen=True):
    """What is called."""

    name: str
    arguments: str
    """JSON text of an object."""


class ToolCallOut(msgspec.Struct, frozen=True):
    """One call."""

    id: str
    function: FunctionOut
    type: str = "function"


class MessageOut(msgspec.Struct, frozen=True):
    """The answer's message."""

    content: str | None
    role: str = "assistant"
    reasoning_content: str | None = None
    name: str | None = None
    tool_calls: list[ToolCallOut] | None = None


class ChoiceOut(msgspec.Struct, frozen=True):
    """One of `n` answers."""

    index: int
    message: MessageOut
    finish_reason: str
    logprobs: ChatLogprobs | None = None


class ChatOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """The response body of a plain call."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChoiceOut]
    usage: UsageOut
    service_tier: str | None = None
    """The tier that was paid, if one was asked for."""


FINISH: dict[FinishReason, str] = {
    "eos": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
}

_encode = msgspec.json.Encoder().encode


class ChatHead(msgspec.Struct, frozen=True):
    """What every chunk of an answer repeats, and what was asked of it."""

    id: str
    created: int
    model: str
    n: int
    options: StreamOptions
    logprobs: bool = False
    tier: str | None = None


class ChatAnswer:
    """Sees each event once, in order."""

    def __init__(self, head: ChatHead) -> None:
        self._asked = head
        self._choices = [_Folded() for _ in range(head.n)]
        self._spoken = [False] * head.n
        tier = b"" if head.tier is None else b'"service_tier": %b, ' % _encode(head.tier)
        self._head = (
            b'data: {"id": %b, "object": "chat.completion.chunk", "created": %d, "model": %b, '
            b'%b"choices": [' % (_encode(head.id), head.created, _encode(head.model), tier)
        )
        # Each delta repeats the role: that is what DeepInfra sends and what its clients saw.
        self._before = [
            self._head + b'{"index": %d, "delta": {"role": "assistant", "content": ' % index
            for index in range(head.n)
        ]

    def text(self, event: Text, work: Work) -> bytes:
        """The chunks of new output."""
        usage = b"null"
        if self._asked.options.continuous_usage_stats:
            usage = _encode(usage_out(event.usage, work.cost_nanos))
        chunks: list[bytes] = []
        if event.reasoning:
            rest = b'null, "reasoning_content": %b, "tool_calls": null' % _encode(event.reasoning)
            chunks.append(self._chunk(event.choice, rest, usage))
        listed = event.tokens if self._asked.logprobs and not _silent(event) else ()
        if event.text or listed:
            rest = _encode(event.text) + b', "tool_calls": null'
            chunks.append(self._chunk(event.choice, rest, usage, listed))
        if event.calls:
            rest = b'null, "tool_calls": ' + _encode(
                [_call_delta(call) for call in _joined(event.calls)]
            )
            chunks.append(self._chunk(event.choice, rest, usage))
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _chunk(
        self, index: int, delta: bytes, usage: bytes, tokens: tuple[Token, ...] = ()
    ) -> bytes:
        self._spoken[index] = True
        logprobs = b', "logprobs": ' + _encode(chat_logprobs(tokens)) if tokens else b""
        return b'%b%b}, "finish_reason": null%b}], "usage": %b}\n\n' % (
            self._before[index],
            delta,
            logprobs,
            usage,
        )

    def fold(self, event: Text) -> None:
        """Keep output for the body."""
        self._choices[event.choice].take(event, keep_tokens=self._asked.logprobs)

    def last(self, done: Done, work: Work) -> bytes:
        """Finish chunks, usage where it was asked for, `[DONE]`."""
        usage = _encode(usage_out(done.usage, work.cost_nanos))
        options = self._asked.options
        chunks: list[bytes] = []
        final = len(done.reasons) - 1
        on_finish = options.include_usage is None or bool(options.continuous_usage_stats)
        for index, reason in enumerate(done.reasons):
            if not self._spoken[index]:
                # A chunk that only opens the message: an answer may have no text at all.
                chunks.append(self._chunk(index, b'"", "tool_calls": null', b"null"))
            chunks.append(
                b'%b{"index": %d, "delta": {}, "finish_reason": "%b"}], "usage": %b}\n\n'
                % (
                    self._head,
                    index,
                    FINISH[reason].encode(),
                    usage if on_finish and index == final else b"null",
                )
            )
        if options.include_usage:
            chunks.append(b'%b], "usage": %b}\n\n' % (self._head, usage))
        chunks.append(b"data: [DONE]\n\n")
        return b"".join(chunks)

    def body(self, done: Done, work: Work) -> bytes:
        """The plain body."""
        asked = self._asked
        choices = [
            ChoiceOut(
                index,
                self._choices[index].message(),
                FINISH[reason],
                chat_logprobs(self._choices[index].tokens) if asked.logprobs else None,
            )
            for index, reason in enumerate(done.reasons)
        ]
        usage = usage_out(done.usage, work.cost_nanos)
        return _encode(
            ChatOut(
                asked.id,
                "chat.completion",
                asked.created,
                asked.model,
                choices,
                usage,
                asked.tier,
            )
        )

    def failed(self, error: InferdError) -> bytes:
        """The error as an event."""
        return stream_event(error)


def _silent(event: Text) -> bool:
    """Its tokens made thinking or calls, whose logprobs OpenAI does not list."""
    return bool(event.reasoning or event.calls)


def _joined(calls: tuple[CallDelta, ...]) -> list[CallDelta]:
    """One piece for each call: clients take a chunk's list as it is."""
    pieces: dict[int, CallDelta] = {}
    for call in calls:
        first = pieces.get(call.index)
        if first is not None:
            arguments = first.arguments + call.arguments
            call = CallDelta(call.index, call.id, first.name or call.name, arguments)
        pieces[call.index] = call
    return list(pieces.values())


def _call_delta(call: CallDelta) -> dict[str, object]:
    """Id, type and name come once: clients join what they see to strings."""
    if call.name:
        function = {"name": call.name, "arguments": call.arguments}
        return {"index": call.index, "id": call.id, "type": "function", "function": function}
    return {"index": call.index, "function": {"arguments": call.arguments}}


class _Folded:
    """One choice of a plain answer."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, list[CallDelta]] = {}

    def take(self, event: Text, *, keep_tokens: bool) -> None:
        self._text.append(event.text)
        if event.reasoning:
            self._reasoning.append(event.reasoning)
        for call in event.calls:
            self._calls.setdefault(call.index, []).append(call)
        if keep_tokens and not _silent(event):
            self.tokens.extend(event.tokens)

    def message(self) -> MessageOut:
        text = "".join(self._text)
        calls = [
            ToolCallOut(
                pieces[0].id,
                FunctionOut(pieces[0].name, "".join(piece.arguments for piece in pieces)),
            )
            for pieces in self._calls.values()
        ]
        return MessageOut(
            content=text if text or not calls else None,
            reasoning_content="".join(self._reasoning) or None,
            tool_calls=calls or None,
        )
