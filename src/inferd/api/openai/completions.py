"""POST /v1[/openai]/completions (deepinfra-api 4.4): a raw prompt, no template."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferd.admission.work import Order, Work
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.fields import NotYet
from inferd.api.openai.chat import FINISH
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
from inferd.tasks.text_generation import Done, Text, TextGenerationRequest, TextPrompt


class CompletionIn(SharedFields, frozen=True, kw_only=True):
    """The request body."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(max_length=100_000)]

    # Known, and not honoured yet:
    echo: NotYet = None
    suffix: NotYet = None
    best_of: NotYet = None
    return_tokens_as_token_ids: NotYet = None
    data: NotYet = None


class CompletionChoice(msgspec.Struct, frozen=True):
    """One of `n` answers."""

    index: int
    text: str
    finish_reason: str
    logprobs: None = None


class CompletionOut(msgspec.Struct, frozen=True):
    """The response body of a plain call."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageOut
    object: str = "text_completion"


_DECODER = msgspec.json.Decoder(CompletionIn)
_encode = msgspec.json.Encoder().encode


class CompletionAnswer:
    """Says an answer as a text completion. `text` is a string on every chunk."""

    def __init__(
        self, *, id_: str, created: int, model: str, n: int, options: StreamOptions
    ) -> None:
        self._id, self._created, self._model = id_, created, model
        self._texts: list[list[str]] = [[] for _ in range(n)]
        self._options = options
        self._head = (
            b'data: {"id": %b, "object": "text_completion", "created": %d, "model": %b, '
            b'"choices": [' % (_encode(id_), created, _encode(model))
        )

    def text(self, event: Text, work: Work) -> bytes:
        """One chunk."""
        if not event.text:
            return b""
        usage = b"null"
        if self._options.continuous_usage_stats:
            usage = _encode(usage_out(event.usage, work.cost_nanos))
        return self._chunk(event.choice, _encode(event.text), b"null", usage)

    def _chunk(self, index: int, text: bytes, reason: bytes, usage: bytes) -> bytes:
        return (
            b'%b{"index": %d, "text": %b, "logprobs": null, "finish_reason": %b}], "usage": %b}\n\n'
            % (self._head, index, text, reason, usage)
        )

    def fold(self, event: Text) -> None:
        """Keep text for the body."""
        self._texts[event.choice].append(event.text)

    def last(self, done: Done, work: Work) -> bytes:
        """Finish chunks, usage where it was asked for, `[DONE]`."""
        usage = _encode(usage_out(done.usage, work.cost_nanos))
        final = len(done.reasons) - 1
        on_finish = self._options.include_usage is None or bool(
            self._options.continuous_usage_stats
        )
        chunks = [
            self._chunk(
                index,
                b'""',
                _encode(FINISH[reason]),
                usage if on_finish and index == final else b"null",
            )
            for index, reason in enumerate(done.reasons)
        ]
        if self._options.include_usage:
            chunks.append(b'%b], "usage": %b}\n\n' % (self._head, usage))
        chunks.append(b"data: [DONE]\n\n")
        return b"".join(chunks)

    def body(self, done: Done, work: Work) -> bytes:
        """The plain body."""
        choices = [
            CompletionChoice(index, "".join(self._texts[index]), FINISH[reason])
            for index, reason in enumerate(done.reasons)
        ]
        usage = usage_out(done.usage, work.cost_nanos)
        return _encode(CompletionOut(self._id, self._created, self._model, choices, usage))


async def completions(exchange: Exchange, services: Services) -> None:
    """Answer one completion."""
    wire = await inference.read(exchange, services, _DECODER)
    refuse_unsupported(wire)
    streaming = stream_options(wire)
    card = inference.find_model(services, wire.model, "text-generation")
    request = TextGenerationRequest(
        model=wire.model,
        prompt=TextPrompt(_prompt(wire)),
        max_tokens=max_tokens(wire),
        sampling=sampling(wire),
        stop=stop_strings(wire),
        n=wire.n or 1,
        cache_scope=inference.cache_scope(exchange, services),
    )
    order = Order(
        request_id=exchange.request_id,
        card=card,
        request=request,
        dialect="openai",
        streamed=bool(wire.stream),
        end_user=wire.user,
    )
    answer = CompletionAnswer(
        id_="cmpl-" + exchange.request_id,
        created=services.clock.unix_ns() // 1_000_000_000,
        model=card.name,
        n=request.n,
        options=streaming,
    )
    await inference.run(exchange, services, order, answer)


def _prompt(wire: CompletionIn) -> str:
    prompt = wire.prompt
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    if prompt and not isinstance(prompt[0], str):
        raise UnsupportedField("Prompts of token ids are not supported yet.", param="prompt")
    raise BadRequest("prompt takes one prompt, as a string.", param="prompt")
