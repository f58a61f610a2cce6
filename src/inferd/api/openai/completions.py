"""POST /v1[/openai]/completions (deepinfra-api 4.4): a raw prompt, no template."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import generation, inference
from inferd.api.errors import stream_event
from inferd.api.exchange import Exchange
from inferd.api.openai.chat_answer import FINISH
from inferd.api.openai.fields import (
    SharedFields,
    StreamOptions,
    TokenId,
    shared_request,
    stream_options,
    wish,
)
from inferd.api.openai.logprobs import CompletionLogprobs, CompletionTokens
from inferd.api.openai.usage import UsageOut, usage_out
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, InferdError, UnsupportedField
from inferd.tasks.text_generation import Done, Text, TextPrompt, Token, TokenPrompt


class CompletionIn(SharedFields, frozen=True, kw_only=True):
    """The request body."""

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(max_length=100_000)]
    """One prompt, as text or as token ids; also wrapped in a list of one."""
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=4)] | None = None
    suffix: str | None = None
    data: Any = None


class CompletionChoice(msgspec.Struct, frozen=True):
    """One of `n` answers."""

    index: int
    text: str
    finish_reason: str
    logprobs: CompletionLogprobs | None = None


class CompletionOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """The response body of a plain call."""

    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageOut
    service_tier: str | None = None
    """The tier that was paid, if one was asked for."""


class CompletionHead(msgspec.Struct, frozen=True):
    """What every chunk of an answer repeats, and what was asked of it."""

    id: str
    created: int
    model: str
    n: int
    options: StreamOptions
    logprobs: int | None = None
    as_ids: bool = False
    tier: str | None = None


_DECODER = msgspec.json.Decoder(CompletionIn)
_encode = msgspec.json.Encoder().encode


class CompletionAnswer:
    """Says an answer as a text completion. `text` is a string on every chunk."""

    def __init__(self, head: CompletionHead) -> None:
        self._asked = head
        self._texts: list[list[str]] = [[] for _ in range(head.n)]
        self._kept: list[list[Token]] = [[] for _ in range(head.n)]
        self._tokens = [
            CompletionTokens(head.logprobs or 0, as_ids=head.as_ids) for _ in range(head.n)
        ]
        tier = b"" if head.tier is None else b'"service_tier": %b, ' % _encode(head.tier)
        self._head = (
            b'data: {"id": %b, "object": "text_completion", "created": %d, "model": %b, '
            b'%b"choices": [' % (_encode(head.id), head.created, _encode(head.model), tier)
        )

    def text(self, event: Text, work: Work) -> bytes:
        """One chunk."""
        listed = event.tokens if self._asked.logprobs is not None else ()
        if not event.text and not listed:
            return b""
        usage = b"null"
        if self._asked.options.continuous_usage_stats:
            usage = _encode(usage_out(event.usage, work.cost_nanos))
        logprobs = _encode(self._tokens[event.choice].take(listed)) if listed else b"null"
        return self._chunk(event.choice, _encode(event.text), b"null", usage, logprobs)

    def _chunk(
        self, index: int, text: bytes, reason: bytes, usage: bytes, logprobs: bytes = b"null"
    ) -> bytes:
        return (
            b'%b{"index": %d, "text": %b, "logprobs": %b, "finish_reason": %b}], "usage": %b}\n\n'
            % (self._head, index, text, logprobs, reason, usage)
        )

    def fold(self, event: Text) -> None:
        """Keep text for the body."""
        self._texts[event.choice].append(event.text)
        if self._asked.logprobs is not None:
            self._kept[event.choice].extend(event.tokens)

    def last(self, done: Done, work: Work) -> bytes:
        """Finish chunks, usage where it was asked for, `[DONE]`."""
        usage = _encode(usage_out(done.usage, work.cost_nanos))
        options = self._asked.options
        final = len(done.reasons) - 1
        on_finish = options.include_usage is None or bool(options.continuous_usage_stats)
        chunks = [
            self._chunk(
                index,
                b'""',
                _encode(FINISH[reason]),
                usage if on_finish and index == final else b"null",
            )
            for index, reason in enumerate(done.reasons)
        ]
        if options.include_usage:
            chunks.append(b'%b], "usage": %b}\n\n' % (self._head, usage))
        chunks.append(b"data: [DONE]\n\n")
        return b"".join(chunks)

    def body(self, done: Done, work: Work) -> bytes:
        """The plain body."""
        asked = self._asked
        choices = [
            CompletionChoice(
                index,
                "".join(self._texts[index]),
                FINISH[reason],
                None if asked.logprobs is None else self._tokens[index].take(self._kept[index]),
            )
            for index, reason in enumerate(done.reasons)
        ]
        usage = usage_out(done.usage, work.cost_nanos)
        return _encode(
            CompletionOut(
                asked.id, "text_completion", asked.created, asked.model, choices, usage, asked.tier
            )
        )

    def failed(self, error: InferdError) -> bytes:
        """The error as an event."""
        return stream_event(error)


async def completions(exchange: Exchange, services: Services) -> None:
    """Continue one text."""
    wire = await inference.read(exchange, services, _DECODER)
    _refuse(wire)
    streaming = stream_options(wire)
    request = msgspec.structs.replace(
        shared_request(wire, _prompt(wire), logprobs=wire.logprobs), echo=bool(wire.echo)
    )

    def answer(card: ModelCard) -> CompletionAnswer:
        tier = None
        if wire.service_tier is not None:
            asked_tier = generation.service_tier(exchange, wire.service_tier)
            tier = services.prices.current(card.name).paid_tier(asked_tier)
        return CompletionAnswer(
            CompletionHead(
                id="cmpl-" + exchange.request_id,
                created=services.clock.unix_ns() // 1_000_000_000,
                model=card.name,
                n=request.n,
                options=streaming,
                logprobs=wire.logprobs,
                as_ids=bool(wire.return_tokens_as_token_ids),
                tier=tier,
            )
        )

    await generation.generate(exchange, services, wish(wire, request), answer)


def _refuse(wire: CompletionIn) -> None:
    """What no model here can do."""
    if wire.suffix:
        raise UnsupportedField("suffix is not supported.", param="suffix")
    if wire.data:
        raise UnsupportedField("data is not supported: models here read text.", param="data")
    if wire.best_of is not None and wire.best_of != (wire.n or 1):
        raise UnsupportedField(
            "best_of is not supported: it equals n, or is left out.", param="best_of"
        )


def _prompt(wire: CompletionIn) -> TextPrompt | TokenPrompt:
    prompt = wire.prompt
    if isinstance(prompt, str):
        return TextPrompt(prompt)
    if len(prompt) == 1 and not isinstance(prompt[0], int):
        inner = prompt[0]
        return TextPrompt(inner) if isinstance(inner, str) else _tokens(inner)
    if prompt and all(isinstance(token, int) for token in prompt):
        return _tokens([token for token in prompt if isinstance(token, int)])
    raise BadRequest("prompt takes one prompt, as a string or as token ids.", param="prompt")


def _tokens(ids: list[int]) -> TokenPrompt:
    if not ids:
        raise BadRequest("The prompt is empty.", param="prompt")
    return TokenPrompt(tuple(ids))
