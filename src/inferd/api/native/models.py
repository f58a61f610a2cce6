"""GET /models/list and /models/{name} (deepinfra-api 8.1, 8.2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.native.pricing import AnyPricing, pricing_of
from inferd.api.native.text_generation import TextGenerationIn, TextGenerationOut
from inferd.api.openai.chat import ChatIn
from inferd.api.openai.chat_answer import ChatOut
from inferd.api.openai.completions import CompletionIn, CompletionOut
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
    max_tokens: int
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
    in_schema: dict[str, Any]
    out_schema: dict[str, Any]
    schemas: list[dict[str, str]]
    max_output_tokens: int


def _model_out(card: ModelCard, price: Price) -> ModelOut:
    return ModelOut(
        model_name=card.name,
        type=card.task,
        reported_type=card.task,
        description=card.summary,
        tags=list(card.tags),
        pricing=pricing_of(card, price),
        max_tokens=card.context_length,
        create_ts=card.created_unix,
        replaced_by=card.replaced_by,
        deprecated=card.deprecated_unix,
    )


def _details(card: ModelCard, price: Price, base_url: str) -> ModelDetails:
    listed = {name: getattr(_model_out(card, price), name) for name in ModelOut.__struct_fields__}
    curl = (
        f'curl "{base_url}/v1/inference/{card.name}" '
        '-H "Authorization: Bearer $INFERD_TOKEN" -H "Content-Type: application/json" '
        '-d \'{"input": "I have this dream"}\''
    )
    example = (
        '{"results": [{"generated_text": " about a day"}], "num_tokens": 4, "num_input_tokens": 4}'
    )
    return ModelDetails(
        **listed,
        version=card.version(),
        owner=card.name.partition("/")[0],
        licence=card.licence,
        curl_inv=curl,
        cmdline_inv=f'inferd run {card.name} "I have this dream"',
        txt_docs=card.summary,
        out_example=example,
        out_docs="`results` holds the continuations, without the prompt.",
        in_schema=_schema(TextGenerationIn),
        out_schema=_schema(TextGenerationOut),
        schemas=[
            {"key": key, "url": f"{base_url}/models/{card.name}/schema/{key}"} for key in SCHEMAS
        ],
        max_output_tokens=card.context_length,
    )


def _schema(struct: type) -> dict[str, Any]:
    return msgspec.json.schema(struct)


class Variant(msgspec.Struct, frozen=True):
    """The schemas of one way to call a model."""

    variant: dict[str, str]
    schema_in: dict[str, Any]
    schema_out: dict[str, Any] | None
    schema_stream: dict[str, Any] | None = None
    fields_in: list[dict[str, Any]] = []


class Version(msgspec.Struct, frozen=True):
    """One version of a model's files."""

    model_name: str
    version: str
    uploaded_at: str


SCHEMAS: dict[str, tuple[type, type]] = {
    "default": (TextGenerationIn, TextGenerationOut),
    "openai-chat-completions": (ChatIn, ChatOut),
    "openai-completions": (CompletionIn, CompletionOut),
}
"""Variant → what goes in and what comes out."""


async def _versions(exchange: Exchange, card: ModelCard) -> None:
    released = datetime.fromtimestamp(card.created_unix, UTC).isoformat()
    body = [Version(card.name, card.version(), released)]
    await exchange.respond(200, msgspec.json.encode(body))


async def _variant(exchange: Exchange, card: ModelCard, base_url: str, key: str) -> None:
    if key not in SCHEMAS:
        raise NotFound(f"There is no schema {key[:64]!r}; there are {', '.join(SCHEMAS)}.")
    takes, gives = SCHEMAS[key]
    url = f"{base_url}/models/{card.name}/schema/{key}"
    body = Variant({"key": key, "url": url}, _schema(takes), _schema(gives))
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
    host = exchange.headers.get(b"host", b"127.0.0.1:8000").decode("latin-1")
    if asked:
        await _variant(exchange, card, f"http://{host}", asked)
        return
    details = _details(card, services.prices.current(card.name), f"http://{host}")
    await exchange.respond(200, msgspec.json.encode(details))
