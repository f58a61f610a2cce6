"""Native embeddings (deepinfra-api 3.3)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import inference, single
from inferd.api.deferred import take_webhook
from inferd.api.exchange import Exchange
from inferd.api.instructions import INSTRUCTION_CHARACTERS_MAX, instruction_for
from inferd.api.native.envelope import InferenceStatus, NativeTeller, succeeded
from inferd.api.openai.embeddings import check_numbers, listed, numbers, rows, texts
from inferd.api.services import Services
from inferd.api.slices import Body, LongJson
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest
from inferd.tasks.embeddings import (
    DIMENSIONS_MAX,
    DIMENSIONS_MIN,
    Embedded,
    EmbeddingsRequest,
)
from inferd.tasks.every import Ending


class EmbeddingsIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    inputs: list[str] | str
    normalize: bool | None = None
    dimensions: Annotated[int, Meta(ge=DIMENSIONS_MIN, le=DIMENSIONS_MAX)] | None = None
    custom_instruction: Annotated[str, Meta(max_length=INSTRUCTION_CHARACTERS_MAX)] | None = None
    instruction: Annotated[str, Meta(max_length=INSTRUCTION_CHARACTERS_MAX)] | None = None
    image: Any = None
    service_tier: str | None = None
    webhook: str | None = None


class EmbeddingsOut(msgspec.Struct, frozen=True):
    """The response body."""

    request_id: str
    inference_status: InferenceStatus
    embeddings: list[list[float]]
    input_tokens: int


_DECODER = msgspec.json.Decoder(EmbeddingsIn)
_encode = msgspec.json.Encoder().encode


async def embeddings(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Embed."""
    body = await inference.read_form_or_json(exchange, services, _DECODER, EmbeddingsIn)
    take_webhook(exchange, body.webhook)
    if body.image is not None:
        raise BadRequest(f"The model {card.name} embeds text only.", param="image")
    inputs = texts(body.inputs, "inputs")
    check_numbers(len(inputs), body.dimensions)
    request = EmbeddingsRequest(
        model=card.name,
        inputs=inputs,
        normalize=body.normalize,
        dimensions=body.dimensions,
        instruction=instruction_for(card, body.custom_instruction, body.instruction),
    )
    order = single.order(exchange, card, request, "native", tier=body.service_tier)
    await single.answer(exchange, services, order, _Teller())


class _Teller(NativeTeller):
    def last(self, ending: Ending, work: Work) -> Body:
        assert isinstance(ending, Embedded), "the task's ending"
        usage = ending.usage
        status = succeeded(work, usage)
        long = LongJson()
        vectors = long.value(listed(_encode(numbers(raw)) for raw in rows(ending)))
        told = EmbeddingsOut(work.order.request_id, status, vectors, usage.input_tokens)
        return long.pieces(_encode(told))
