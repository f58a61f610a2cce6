"""POST /anthropic/v1/messages/count_tokens: the exact length of a prompt, for free."""

from __future__ import annotations

import msgspec

from inferd.api import inference, tokenization
from inferd.api.anthropic.prompt import chat_prompt, media_parts
from inferd.api.anthropic.wire import CountTokensIn, CountTokensOut
from inferd.api.exchange import Exchange
from inferd.api.parts import take_parts
from inferd.api.services import Services

_DECODER = msgspec.json.Decoder(CountTokensIn)


async def count_tokens(exchange: Exchange, services: Services) -> None:
    """Count what `messages` would be charged as input, the template's tokens included."""
    wire = await inference.read_cut(exchange, services, _DECODER)
    card = inference.find_model(services, wire.model, "text-generation")
    taken = await take_parts(exchange, services, (wire.model,), media_parts(wire))
    tokens = await tokenization.count(exchange, services, card, chat_prompt(wire, taken))
    await exchange.respond(200, msgspec.json.encode(CountTokensOut(tokens)))
