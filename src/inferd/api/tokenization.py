"""Tokens of a prompt, counted by the model's own tokenizer, and back: free, but not unlimited.

POST /v1/tokenize and /v1/detokenize have vLLM's shapes (deepinfra-api 7).
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from inferd.admission.work import Dialect, Order
from inferd.api import inference
from inferd.api.body import field_invalid
from inferd.api.exchange import Exchange
from inferd.api.openai.chat import ChatIn, to_request
from inferd.api.openai.fields import ModelName, TokenId
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.engines.base import Request
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.every import Event
from inferd.tasks.text_generation import (
    ChatPrompt,
    Detokenized,
    DetokenizeRequest,
    Prompt,
    TextPrompt,
    Tokenized,
    TokenizeRequest,
)

TOKENS_MAX = 1_000_000


class TokenizeIn(msgspec.Struct, frozen=True, kw_only=True):
    """A raw prompt, or messages that the model's template renders."""

    model: ModelName
    prompt: str | None = None
    messages: list[Any] | None = None
    """As in a chat; `tools` and `chat_template_kwargs` count too."""
    tools: list[Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool = True
    return_token_strs: bool | None = None


class TokenizeOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tokens."""

    count: int
    max_model_len: int
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None = None


class DetokenizeIn(msgspec.Struct, frozen=True):
    """Token ids of the model's vocabulary."""

    model: ModelName
    tokens: Annotated[list[TokenId], Meta(max_length=TOKENS_MAX)]


class DetokenizeOut(msgspec.Struct, frozen=True):
    """Their text."""

    prompt: str


_TOKENIZE = msgspec.json.Decoder(TokenizeIn)
_DETOKENIZE = msgspec.json.Decoder(DetokenizeIn)


async def tokenize(exchange: Exchange, services: Services) -> None:
    """POST /v1/tokenize."""
    wire = await inference.read(exchange, services, _TOKENIZE)
    card = inference.find_model(services, wire.model, "text-generation")
    if (wire.prompt is None) == (wire.messages is None):
        raise BadRequest("Either prompt or messages is needed.", param="prompt")
    prompt = TextPrompt(wire.prompt) if wire.prompt is not None else _chat_prompt(wire)
    request = TokenizeRequest(card.name, prompt, wire.add_special_tokens)
    found = await _ask(exchange, services, card, request)
    if not isinstance(found, Tokenized):
        raise EngineFailed("The tokenizer gave no tokens.")
    texts = found.texts if wire.return_token_strs else None
    body = TokenizeOut(len(found.ids), found.context_length, found.ids, texts)
    await exchange.respond(200, msgspec.json.encode(body))


async def detokenize(exchange: Exchange, services: Services) -> None:
    """POST /v1/detokenize."""
    wire = await inference.read(exchange, services, _DETOKENIZE)
    card = inference.find_model(services, wire.model, "text-generation")
    request = DetokenizeRequest(card.name, tuple(wire.tokens))
    found = await _ask(exchange, services, card, request)
    if not isinstance(found, Detokenized):
        raise EngineFailed("The tokenizer gave no text.")
    await exchange.respond(200, msgspec.json.encode(DetokenizeOut(found.text)))


async def count(exchange: Exchange, services: Services, card: ModelCard, prompt: Prompt) -> int:
    """Tokens of a prompt, the template's included."""
    found = await _ask(exchange, services, card, TokenizeRequest(card.name, prompt), "anthropic")
    if not isinstance(found, Tokenized):
        raise EngineFailed("The tokenizer gave no tokens.")
    return len(found.ids)


async def _ask(
    exchange: Exchange,
    services: Services,
    card: ModelCard,
    request: Request,
    dialect: Dialect = "openai",
) -> Event:
    """The event that answers. Goes through the gate like all work, and leaves no entry."""
    order = Order(
        request_id=exchange.request_id,
        card=card,
        request=request,
        dialect=dialect,
        streamed=False,
    )
    exchange.watch()
    work = exchange.work = await services.gate.admit(exchange.caller, order)
    answer: Event | None = None
    async with aclosing(work.events()) as events:
        async for event in events:
            answer = event if isinstance(event, Tokenized | Detokenized) else answer
    if answer is None:
        raise EngineFailed("The tokenizer gave no answer.")
    return answer


def _chat_prompt(wire: TokenizeIn) -> ChatPrompt:
    fields = {
        "model": wire.model,
        "messages": wire.messages,
        "tools": wire.tools,
        "chat_template_kwargs": wire.chat_template_kwargs,
        "continue_final_message": wire.continue_final_message,
    }
    try:
        prompt = to_request(msgspec.convert(fields, ChatIn)).prompt
    except msgspec.ValidationError as error:
        raise field_invalid(error) from None
    assert isinstance(prompt, ChatPrompt), "a chat has messages"
    return prompt
