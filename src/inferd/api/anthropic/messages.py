"""POST /anthropic/v1/messages (deepinfra-api 5)."""

from __future__ import annotations

import msgspec

from inferd.api import generation, inference
from inferd.api.anthropic.answer import MessageAnswer
from inferd.api.anthropic.prompt import chat_prompt, media_parts
from inferd.api.anthropic.wire import MessagesIn
from inferd.api.exchange import Exchange
from inferd.api.parts import NOTHING_TAKEN, Taken, take_parts
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.tasks.text_generation import Constraint, Sampling, TextGenerationRequest

_DECODER = msgspec.json.Decoder(MessagesIn)


async def messages(exchange: Exchange, services: Services) -> None:
    """Answer one conversation."""
    wire = await inference.read_cut(exchange, services, _DECODER)
    models = generation.fallbacks(wire.model, wire.models)
    taken = await take_parts(exchange, services, models, media_parts(wire))
    wish = generation.Wish(
        models=models,
        request=to_request(wire, taken),
        dialect="anthropic",
        streamed=bool(wire.stream),
        end_user=wire.metadata.user_id if wire.metadata else None,
        tier=wire.service_tier,
        fail_fast=bool(wire.fail_fast),
    )

    def answer(card: ModelCard) -> MessageAnswer:
        return MessageAnswer(id_="msg_" + exchange.request_id, model=card.name)

    await generation.generate(exchange, services, wish, answer)


def to_request(wire: MessagesIn, taken: Taken = NOTHING_TAKEN) -> TextGenerationRequest:
    """The task's request. Raises BadRequest for what is neither text nor taken."""
    return TextGenerationRequest(
        model=wire.model,
        prompt=chat_prompt(wire, taken),
        max_tokens=wire.max_tokens,
        sampling=_sampling(wire),
        stop=tuple(wire.stop_sequences or ()),
        cache_key=wire.prompt_cache_key or "",
        constraint=_constraint(wire),
    )


def _constraint(wire: MessagesIn) -> Constraint | None:
    given = wire.output_config.format if wire.output_config is not None else None
    given = given or wire.output_format
    if given is None:
        return None
    generation.check_depth(given.schema, "output_config.format.schema")
    return Constraint("json_schema", schema=given.schema)


def _sampling(wire: MessagesIn) -> Sampling:
    plain = Sampling()
    return Sampling(
        temperature=plain.temperature if wire.temperature is None else wire.temperature,
        top_p=plain.top_p if wire.top_p is None else wire.top_p,
        top_k=max(wire.top_k or 0, 0),
    )
