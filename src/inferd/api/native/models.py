"""GET /models/list and /models/{name} (deepinfra-api 8.1, 8.2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.native.pricing import AnyPricing, pricing_of
from inferd.api.native.task_docs import (
    TASK_DOCS,
    answer,
    command,
    curl,
    fields,
    schema,
    variants,
)
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.errors import NotFound
from inferd.metering.prices import Price


class ModelOut(msgspec.Struct, frozen=True, kw_only=True):
    """A model in lists."""

    model_name: str
    type: str
    reported_type: str
    description: str
    cover_img_url: str = ""
    tags: list[str]
    pricing: AnyPricing
    max_tokens: int | None
    """Prompt and output together; None where a task has no tokens."""
    replaced_by: str | None = None
    deprecated: int | None = None
    """Unix seconds."""
    quantization: None = None
    mmlu: None = None
    expected: None = None
    create_ts: int
    private: int = 0
    is_partner: bool = False


class ModelDetails(ModelOut, frozen=True, kw_only=True):
    """A model alone: with schemas and examples."""

    version: str
    featured: bool = False
    owner: str
    public: bool = True
    licence: str
    curl_inv: str
    cmdline_inv: str
    txt_docs: str
    out_example: str
    out_docs: str
    in_schema: dict[str, Any] | None
    out_schema: dict[str, Any] | None
    in_fields: list[dict[str, Any]]
    schemas: list[dict[str, str]]
    max_output_tokens: int | None


def _model_out(card: ModelCard, price: Price) -> ModelOut:
    return ModelOut(
        model_name=card.name,
        type=card.task,
        reported_type=card.task,
        description=card.summary,
        tags=list(card.tags),
        pricing=pricing_of(card, price),
        max_tokens=card.context_length or None,
        create_ts=card.created_unix,
        replaced_by=card.replaced_by,
        deprecated=card.deprecated_unix,
    )


def _details(card: ModelCard, price: Price, base_url: str) -> ModelDetails:
    listed = {name: getattr(_model_out(card, price), name) for name in ModelOut.__struct_fields__}
    takes, gives, _ = TASK_DOCS[card.task].native
    at = f"{base_url}/models/{card.name}/schema"
    return ModelDetails(
        **listed,
        version=card.version(),
        owner=card.name.partition("/")[0],
        licence=card.licence,
        curl_inv=curl(card, base_url),
        cmdline_inv=command(card),
        txt_docs=card.summary,
        out_example=answer(card),
        out_docs=TASK_DOCS[card.task].words,
        in_schema=schema(takes),
        out_schema=schema(gives),
        in_fields=fields(takes),
        schemas=[{"key": key, "url": f"{at}/{key}"} for key in variants(card)],
        max_output_tokens=card.context_length if card.task == "text-generation" else None,
    )


class Variant(msgspec.Struct, frozen=True):
    """The schemas of one way to call a model."""

    variant: dict[str, str]
    schema_in: dict[str, Any] | None
    schema_out: dict[str, Any] | None
    schema_stream: dict[str, Any] | None = None
    fields_in: list[dict[str, Any]] = []


class Version(msgspec.Struct, frozen=True):
    """One version of a model's files."""

    model_name: str
    version: str
    uploaded_at: str


async def _versions(exchange: Exchange, card: ModelCard) -> None:
    released = datetime.fromtimestamp(card.created_unix, UTC).isoformat()
    body = [Version(card.name, card.version(), released)]
    await exchange.respond(200, msgspec.json.encode(body))


async def _variant(exchange: Exchange, card: ModelCard, base_url: str, key: str) -> None:
    known = variants(card)
    if key not in known:
        raise NotFound(f"There is no schema {key[:64]!r}; there are {', '.join(known)}.")
    takes, gives, streams = known[key]
    body = Variant(
        {"key": key, "url": f"{base_url}/models/{card.name}/schema/{key}"},
        schema(takes),
        schema(gives),
        schema(streams),
        fields(takes),
    )
    await exchange.respond(200, msgspec.json.encode(body))


async def no_models(exchange: Exchange, services: Services) -> None:
    """Lists of what cannot be made here: adapters, private models, deployments, features."""
    await exchange.respond(200, b"[]")


async def model_list(exchange: Exchange, services: Services) -> None:
    """All models, DeepInfra's way."""
    cards = services.catalog.cards()
    current = services.prices.current
    body = msgspec.json.encode([_model_out(card, current(card.name)) for card in cards])
    await exchange.respond(200, body)


async def model_details(exchange: Exchange, services: Services) -> None:
    """One model, with what a client needs to call it; its versions; one of its schemas."""
    name, _, asked = exchange.rest.partition("/schema/")
    if not asked and name.endswith("/versions"):
        await _versions(exchange, services.catalog.get(name.removesuffix("/versions")))
        return
    card = services.catalog.get(name)
    base = services.options.public_url or exchange.origin
    if asked:
        await _variant(exchange, card, base, asked)
        return
    details = _details(card, services.prices.current(card.name), base)
    await exchange.respond(200, msgspec.json.encode(details))
