"""GET /v1[/openai]/models and …/models/{id} (deepinfra-api 4.8)."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.money import usd


class Pricing(msgspec.Struct, frozen=True):
    """Dollars per million tokens."""

    input_tokens: float
    output_tokens: float
    cache_read_tokens: float


class Metadata(msgspec.Struct, frozen=True):
    """What `filter=with_meta` adds."""

    description: str
    context_length: int
    max_tokens: int
    pricing: Pricing
    tags: list[str]
    discount: None = None
    default_width: None = None
    default_height: None = None
    default_iterations: None = None


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


def _metadata(card: ModelCard) -> Metadata:
    fresh, cached, output = card.rates()
    return Metadata(
        description=card.summary,
        context_length=card.context_length,
        max_tokens=card.context_length,
        pricing=Pricing(usd(fresh), usd(output), usd(cached)),
        tags=["chat", *card.tags],
    )


async def models(exchange: Exchange, services: Services) -> None:
    """All models of the catalogue."""
    query = parse_qs(exchange.query.decode("latin-1"))
    with_meta = "with_meta" in query.get("filter", [])
    entries = [
        _entry(card, _metadata(card) if with_meta else None) for card in services.catalog.cards()
    ]
    await exchange.respond(200, msgspec.json.encode(ModelList(entries)))


async def model(exchange: Exchange, services: Services) -> None:
    """One model."""
    card = services.catalog.get(exchange.rest)
    await exchange.respond(200, msgspec.json.encode(_entry(card, _metadata(card))))
