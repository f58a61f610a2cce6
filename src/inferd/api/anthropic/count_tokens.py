"""POST /anthropic/v1/messages/count_tokens: the exact length of a prompt, for free."""

from __future__ import annotations

import msgspec

from inferd.api import inference, tokenization
from inferd.api.anthropic.prompt import chat_prompt
from inferd.api.anthropic.wire import CountTokensIn, CountTokensOut
from inferd.api.exchange import Exchange
from inferd.api.services import Services

_DECODER = msgspec.json.Decoder(CountTokensIn)


async def count_tokens(exchange: Exchange, services: Services) -> None:
    """Count what `messages` would be charged as input, the template's tokens included."""
    wire = await inference.read(exchange, services, _DECODER)
    card = inference.find_model(services, wire.model, "text-generation")
    tokens = await tokenization.count(exchange, services, card, chat_prompt(wire))
    await exchange.respond(200, msgspec.json.encode(CountTokensOut(tokens)))
