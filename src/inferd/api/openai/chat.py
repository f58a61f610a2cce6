"""POST /v1[/openai]/chat/completions (deepinfra-api 4.1, 19)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.admission.work import Order, Work
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.fields import NotYet, not_yet
from inferd.api.openai.fields import (
    SharedFields,
    StreamOptions,
    max_tokens,
    refuse_unsupported,
    sampling,
    stop_strings,
    stream_options,
)
from inferd.api.openai.usage import UsageOut, usage_out
from inferd.api.services import Services
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import (
    ChatPrompt,
    Done,
    FinishReason,
    Message,
    Role,
    Text,
    TextGenerationRequest,
)

MESSAGES_MAX = 4096


class Part(msgspec.Struct, frozen=True):
    """A piece of a message's content. Only text is supported yet."""

    type: str
    text: str | None = None
    prompt_cache_breakpoint: NotYet = None


class MessageIn(msgspec.Struct, frozen=True):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Meta(max_length=MESSAGES_MAX)] | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None
    tool_calls: NotYet = None
    tool_call_id: str | None = None
    reasoning_content: NotYet = None
    cache_control: NotYet = None


class ChatIn(SharedFields, frozen=True, kw_only=True):
    """The request body."""

    messages: Annotated[list[MessageIn], Meta(min_length=1, max_length=MESSAGES_MAX)]

    # Known, and not honoured yet:
    tools: NotYet = None
    tool_choice: NotYet = None
    functions: NotYet = None
    function_call: NotYet = None
    reasoning_effort: NotYet = None
    reasoning: NotYet = None
    chat_template_kwargs: NotYet = None
    continue_final_message: NotYet = None


class MessageOut(msgspec.Struct, frozen=True):
    """The answer's message."""

    content: str
    role: str = "assistant"
    reasoning_content: str | None = None
    name: str | None = None
    tool_calls: None = None


class ChoiceOut(msgspec.Struct, frozen=True):
    """One of `n` answers."""

    index: int
    message: MessageOut
    finish_reason: str
    logprobs: None = None


class ChatOut(msgspec.Struct, frozen=True):
    """The response body of a plain call."""

    id: str
    created: int
    model: str
    choices: list[ChoiceOut]
    usage: UsageOut
    object: str = "chat.completion"


FINISH: dict[FinishReason, str] = {"eos": "stop", "stop_sequence": "stop", "length": "length"}

_DECODER = msgspec.json.Decoder(ChatIn)
_encode = msgspec.json.Encoder().encode


class ChatAnswer:
    """Says an answer as a chat completion."""

    def __init__(
        self, *, id_: str, created: int, model: str, n: int, options: StreamOptions
    ) -> None:
        self._id, self._created, self._model = id_, created, model
        self._texts: list[list[str]] = [[] for _ in range(n)]
        self._options = options
        self._spoken = [False] * n
        head = (
            b'data: {"id": %b, "object": "chat.completion.chunk", "created": %d, "model": %b, '
            b'"choices": [' % (_encode(id_), created, _encode(model))
        )
        self._head = head
        # Each delta repeats the role: that is what DeepInfra sends and what its clients saw.
        self._before = [
            head + b'{"index": %d, "delta": {"role": "assistant", "content": ' % index
            for index in range(n)
        ]

    def text(self, event: Text, work: Work) -> bytes:
        """One chunk."""
        if not event.text:
            return b""
        self._spoken[event.choice] = True
        usage = b"null"
        if self._options.continuous_usage_stats:
            usage = _encode(usage_out(event.usage, work.cost_nanos))
        return b'%b%b, "tool_calls": null}, "finish_reason": null}], "usage": %b}\n\n' % (
            self._before[event.choice],
            _encode(event.text),
            usage,
        )

    def fold(self, event: Text) -> None:
        """Keep text for the body."""
        self._texts[event.choice].append(event.text)

    def last(self, done: Done, work: Work) -> bytes:
        """Finish chunks, usage where it was asked for, `[DONE]`."""
        usage = _encode(usage_out(done.usage, work.cost_nanos))
        chunks: list[bytes] = []
        final = len(done.reasons) - 1
        on_finish = self._options.include_usage is None or bool(
            self._options.continuous_usage_stats
        )
        for index, reason in enumerate(done.reasons):
            if not self._spoken[index]:
                chunks.append(self._opening(index))
            chunks.append(
                b'%b{"index": %d, "delta": {}, "finish_reason": "%b"}], "usage": %b}\n\n'
                % (
                    self._head,
                    index,
                    FINISH[reason].encode(),
                    usage if on_finish and index == final else b"null",
                )
            )
        if self._options.include_usage:
            chunks.append(b'%b], "usage": %b}\n\n' % (self._head, usage))
        chunks.append(b"data: [DONE]\n\n")
        return b"".join(chunks)

    def _opening(self, index: int) -> bytes:
        """A chunk that only opens the message: an answer may have no text at all."""
        return (
            b'%b"", "tool_calls": null}, "finish_reason": null}], "usage": null}\n\n'
            % self._before[index]
        )

    def body(self, done: Done, work: Work) -> bytes:
        """The plain body."""
        choices = [
            ChoiceOut(index, MessageOut("".join(self._texts[index])), FINISH[reason])
            for index, reason in enumerate(done.reasons)
        ]
        usage = usage_out(done.usage, work.cost_nanos)
        return _encode(ChatOut(self._id, self._created, self._model, choices, usage))


async def chat(exchange: Exchange, services: Services) -> None:
    """Answer one chat."""
    wire = await inference.read(exchange, services, _DECODER)
    refuse_unsupported(wire)
    streaming = stream_options(wire)
    card = inference.find_model(services, wire.model, "text-generation")
    request = to_request(wire, cache_scope=inference.cache_scope(exchange, services))
    order = Order(
        request_id=exchange.request_id,
        card=card,
        request=request,
        dialect="openai",
        streamed=bool(wire.stream),
        end_user=wire.user,
    )
    answer = ChatAnswer(
        id_="chatcmpl-" + exchange.request_id,
        created=services.clock.unix_ns() // 1_000_000_000,
        model=card.name,
        n=request.n,
        options=streaming,
    )
    await inference.run(exchange, services, order, answer)


def to_request(wire: ChatIn, *, cache_scope: str) -> TextGenerationRequest:
    """The task's request. Raises BadRequest for content that is not text."""
    return TextGenerationRequest(
        model=wire.model,
        prompt=ChatPrompt(tuple(_message(m, i) for i, m in enumerate(wire.messages))),
        max_tokens=max_tokens(wire),
        sampling=sampling(wire),
        stop=stop_strings(wire),
        n=wire.n or 1,
        cache_scope=cache_scope,
    )


def _message(message: MessageIn, index: int) -> Message:
    at = f"messages.{index}"
    _refuse_asked(message, at)
    if message.role == "tool":
        raise UnsupportedField("The role tool is not supported yet.", param=f"{at}.role")
    if message.content is None and message.role != "assistant":
        raise BadRequest("content is missing.", param=f"{at}.content")
    # OpenAI's newer name for system.
    role: Role = "system" if message.role == "developer" else message.role
    return Message(role, _text(message, at), message.name)


def _refuse_asked(part: MessageIn | Part, at: str) -> None:
    for name in not_yet(type(part)):
        if getattr(part, name):
            raise UnsupportedField(f"{name} is not supported yet.", param=f"{at}.{name}")


def _text(message: MessageIn, at: str) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    texts: list[str] = []
    for index, part in enumerate(message.content):
        if part.type != "text":
            raise UnsupportedField(
                f"Content parts of type {part.type[:40]!r} are not supported yet.",
                param=f"{at}.content.{index}.type",
            )
        _refuse_asked(part, f"{at}.content.{index}")
        if part.text is None:
            raise BadRequest("text is missing.", param=f"{at}.content.{index}.text")
        texts.append(part.text)
    return "".join(texts)
