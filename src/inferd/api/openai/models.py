"""GET /v1[/openai]/models and …/models/{id} (deepinfra-api 4.8)."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.native.pricing import default_picture, pricing_type
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.metering.prices import ONE, Price
from inferd.money import UNITS_PER_RATE, usd
from inferd.tasks.base import TaskName
from inferd.tasks.text_to_image import UNIT_PIXELS


class Pricing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Dollars: per million tokens and characters, per second, per picture of the default size."""

    input_tokens: float | None = None
    output_tokens: float | None = None
    cache_read_tokens: float | None = None
    per_image_unit: float | None = None
    output_seconds: float | None = None
    frame_units: float | None = None
    input_characters: float | None = None
    input_seconds: float | None = None
    compute_seconds: float | None = None
    uptime_seconds: float | None = None


class Metadata(msgspec.Struct, frozen=True):
    """What `filter=with_meta` adds."""

    description: str
    context_length: int | None
    """None where a task has no tokens."""
    max_tokens: int | None
    pricing: Pricing
    tags: list[str]
    discount: float | None = None
    """The fraction that is taken off."""
    default_width: int | None = None
    default_height: int | None = None
    default_iterations: int | None = None


class ModelEntry(msgspec.Struct, frozen=True):
    """One model in OpenAI's shape."""

    id: str
    created: int
    owned_by: str
    root: str
    object: str = "model"
    parent: None = None
    metadata: Metadata | None = None


class ModelList(msgspec.Struct, frozen=True):
    """All models."""

    data: list[ModelEntry]
    object: str = "list"


def _entry(card: ModelCard, metadata: Metadata | None) -> ModelEntry:
    owner = card.name.partition("/")[0]
    return ModelEntry(card.name, card.created_unix, owner, card.name, metadata=metadata)


def _metadata(card: ModelCard, price: Price) -> Metadata:
    picture = default_picture(card) if price.billed_unit == "image_units" else (None, None, None)
    return Metadata(
        description=card.summary,
        context_length=card.context_length or None,
        max_tokens=card.context_length or None,
        pricing=_pricing(card, price),
        tags=_tags(card),
        discount=price.discount / ONE if price.discount else None,
        default_width=picture[0],
        default_height=picture[1],
        default_iterations=picture[2],
    )


SURFACES: dict[TaskName, str] = {
    "text-generation": "chat",
    "embeddings": "embed",
    "text-to-image": "image-gen",
    "text-to-video": "video-gen",
    "text-to-speech": "tts",
    "automatic-speech-recognition": "stt",
}
"""DeepInfra's word for what a model is for; chats with pictures are `vlm`."""


def _tags(card: ModelCard) -> list[str]:
    """The one surface first, then what the card says."""
    surface = "vlm" if card.modalities else SURFACES.get(card.task)
    return list(dict.fromkeys([*([surface] if surface else []), *card.tags]))


def _pricing(card: ModelCard, price: Price) -> Pricing:
    unit = price.billed_unit
    if unit is None:
        only_input = pricing_type(price, card.task) == "input_tokens"
        return Pricing(
            usd(price.input),
            None if only_input else usd(price.output),
            None if only_input else usd(price.cached),
        )
    if unit == "image_units":
        width, height, _ = default_picture(card)
        default = usd(price.unit) * width * height / UNIT_PIXELS / UNITS_PER_RATE
        return Pricing(per_image_unit=default)
    each = usd(price.unit)
    shown = each if unit == "input_characters" else each / UNITS_PER_RATE
    return msgspec.convert({unit: shown}, Pricing)


async def models(exchange: Exchange, services: Services) -> None:
    """All models of the catalogue."""
    query = parse_qs(exchange.query.decode("latin-1"))
    current = services.prices.current
    with_meta = "with_meta" in query.get("filter", [])
    entries = [
        _entry(card, _metadata(card, current(card.name)) if with_meta else None)
        for card in services.catalog.cards()
    ]
    await exchange.respond(200, msgspec.json.encode(ModelList(entries)))


async def model(exchange: Exchange, services: Services) -> None:
    """One model."""
    card = services.catalog.get(exchange.rest)
    metadata = _metadata(card, services.prices.current(card.name))
    await exchange.respond(200, msgspec.json.encode(_entry(card, metadata)))
