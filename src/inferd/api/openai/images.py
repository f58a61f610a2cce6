"""POST /v1[/openai]/images/{generations,edits,variations}, GET /v1/images/{id} (deepinfra-api 4.6).

`quality` sets the steps (low: half of the model's own, high and hd: twice as many), `style`
natural lowers the guidance by a quarter. Streams are in `images_stream`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import inference, single
from inferd.api.errors import stream_event
from inferd.api.exchange import Exchange
from inferd.api.files import respond_file
from inferd.api.media import read_with_media
from inferd.api.openai.images_stream import Kind, ShownQuality, StreamTeller
from inferd.api.pictures import PROMPT_CHARACTERS_MAX, Pictures, parse_size
from inferd.api.services import Services
from inferd.api.slices import Body, LongJson, base64_pieces
from inferd.api.sniff import sniff
from inferd.catalog.card import ModelCard
from inferd.engines.registry import extra_installed
from inferd.errors import BadRequest, InferdError, ModelNotFound, UnsupportedField
from inferd.money import usd
from inferd.tasks.every import Ending, Event
from inferd.tasks.text_to_image import (
    IMAGES_MAX,
    PREVIEWS_MAX,
    STEPS_MAX,
    ImageFormat,
    ImageRequest,
    Rendered,
)

DEFAULTS = ("black-forest-labs/FLUX-1-schnell", "inferd/emoji-flow")
"""Models for who names none: the first whose libraries and memory are here."""

Prompt = Annotated[str, Meta(min_length=1, max_length=PROMPT_CHARACTERS_MAX)]
Count = Annotated[int, Meta(ge=1, le=IMAGES_MAX)]
Partials = Annotated[int, Meta(ge=0, le=PREVIEWS_MAX)]
Quality = Literal["auto", "low", "medium", "standard", "high", "hd"]
Style = Literal["vivid", "natural"]

_STEPS: dict[str, float] = {"low": 0.5, "high": 2.0, "hd": 2.0}
_SHOWN: dict[str, ShownQuality] = {
    "low": "low",
    "medium": "medium",
    "standard": "medium",
    "high": "high",
    "hd": "high",
}
"""`quality` in OpenAI's words of today."""
_NATURAL = 0.75
VARIATION_STRENGTH = 0.4


class _Shared(msgspec.Struct, frozen=True, kw_only=True):
    """Of all three."""

    model: str | None = None
    n: Count | None = 1
    size: Annotated[str, Meta(max_length=32)] | None = None
    response_format: Literal["b64_json", "url"] | None = "b64_json"
    stream: bool | None = False
    output_format: ImageFormat | None = "png"
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    service_tier: str | None = None


class ImageGenerationIn(_Shared, frozen=True, kw_only=True):
    """The body of generations."""

    prompt: Prompt
    quality: Quality | None = "auto"
    style: Style | None = None
    partial_images: Partials | None = 0


class ImageEditIn(_Shared, frozen=True, kw_only=True):
    """The form of edits."""

    image: list[str] | str
    prompt: Prompt
    mask: str | None = None
    quality: Quality | None = "auto"
    partial_images: Partials | None = 0


class ImageVariationIn(_Shared, frozen=True, kw_only=True):
    """The form of variations."""

    image: list[str] | str


class ImageData(msgspec.Struct, frozen=True):
    """One picture."""

    b64_json: str | None
    url: str | None
    revised_prompt: None = None


class ImagesUsage(msgspec.Struct, frozen=True):
    """Image units and what they cost."""

    image_units: float
    estimated_cost: float


class ImagesOut(msgspec.Struct, frozen=True):
    """The response body."""

    created: int
    data: list[ImageData]
    model: str
    usage: ImagesUsage


_GENERATION = msgspec.json.Decoder(ImageGenerationIn, strict=False)
_EDIT = msgspec.json.Decoder(ImageEditIn, strict=False)
_VARIATION = msgspec.json.Decoder(ImageVariationIn, strict=False)
_encode = msgspec.json.Encoder().encode


async def generations(exchange: Exchange, services: Services) -> None:
    """Draw."""
    body = await inference.read(exchange, services, _GENERATION)
    card = _model(services, body)
    width, height = parse_size(body.size, card)
    request = ImageRequest(
        model=card.name,
        prompt=body.prompt,
        n=body.n or 1,
        width=width,
        height=height,
        steps=_steps(card, body.quality),
        guidance=_guidance(card, body.style),
        seed=body.seed,
        image_format=body.output_format or "png",
        previews=_previews(body),
    )
    await _answer(exchange, services, card, request, body)


async def edits(exchange: Exchange, services: Services) -> None:
    """Draw on from a picture."""
    body, door = await read_with_media(exchange, services, _EDIT, ImageEditIn)
    card = _model(services, body)
    width, height = parse_size(body.size, card)
    request = ImageRequest(
        model=card.name,
        prompt=body.prompt,
        n=body.n or 1,
        width=width,
        height=height,
        steps=_steps(card, body.quality),
        image=await door.take(_only(body.image), "image", "image"),
        mask=await door.take(body.mask, "image", "mask") if body.mask else None,
        seed=body.seed,
        image_format=body.output_format or "png",
        previews=_previews(body),
    )
    await _answer(exchange, services, card, request, body)


async def variations(exchange: Exchange, services: Services) -> None:
    """Draw something like a picture."""
    body, door = await read_with_media(exchange, services, _VARIATION, ImageVariationIn)
    if body.stream:
        raise UnsupportedField(
            "Variations come whole; generations and edits stream.", param="stream"
        )
    card = _model(services, body)
    width, height = parse_size(body.size, card)
    request = ImageRequest(
        model=card.name,
        prompt="",
        n=body.n or 1,
        width=width,
        height=height,
        image=await door.take(_only(body.image), "image", "image"),
        strength=VARIATION_STRENGTH,
        seed=body.seed,
        image_format=body.output_format or "png",
    )
    await _answer(exchange, services, card, request, body)


async def show_image(exchange: Exchange, services: Services) -> None:
    """A picture that somebody asked for by URL."""
    content = await services.blobs.get(exchange.rest)
    found = sniff(content[:64])
    mime = found.mime if found else "application/octet-stream"
    await respond_file(exchange, content, mime)


def _only(images: list[str] | str) -> str:
    if isinstance(images, str):
        return images
    if len(images) != 1:
        raise BadRequest("The models here take one image at a time.", param="image")
    return images[0]


def _model(services: Services, body: _Shared) -> ModelCard:
    name = body.model
    if name:
        return inference.find_model(services, name, "text-to-image")
    for default in DEFAULTS:
        try:
            card = services.catalog.serving(default)
        except ModelNotFound:
            continue
        installed = card.extra is None or extra_installed(card.extra)
        if installed and services.router.fits(card):
            return card
    raise BadRequest("No text-to-image model is served here by default; name one.", param="model")


def _steps(card: ModelCard, quality: str | None) -> int | None:
    factor = _STEPS.get(quality or "auto")
    if factor is None:
        return None
    own = int(str(card.options.get("steps", 20)))
    return max(1, min(STEPS_MAX, round(own * factor)))


def _guidance(card: ModelCard, style: str | None) -> float | None:
    own = card.options.get("guidance")
    return float(str(own)) * _NATURAL if style == "natural" and own is not None else None


def _previews(body: ImageGenerationIn | ImageEditIn) -> int:
    return body.partial_images or 0 if body.stream else 0


async def _answer(
    exchange: Exchange, services: Services, card: ModelCard, request: ImageRequest, body: _Shared
) -> None:
    streamed = bool(body.stream)
    order = single.order(
        exchange,
        card,
        request,
        "openai",
        streamed=streamed,
        tier=body.service_tier,
        end_user=body.user,
    )
    if streamed and isinstance(body, ImageGenerationIn | ImageEditIn):
        kind: Kind = "image_edit" if isinstance(body, ImageEditIn) else "image_generation"
        told = StreamTeller(services.clock, kind, request, _SHOWN.get(body.quality or "", "auto"))
        await single.answer(exchange, services, order, told, "events")
        return
    teller = _Teller(exchange, services, as_url=body.response_format == "url")
    await single.answer(exchange, services, order, teller)


class _Teller:
    """OpenAI's words."""

    def __init__(self, exchange: Exchange, services: Services, *, as_url: bool) -> None:
        self._services = services
        self._as_url = as_url
        self._pictures = Pictures()
        self._urls: list[str] = []
        self._base = base_url(exchange, services)

    def say(self, event: Event, work: Work) -> bytes:
        """Nothing before the end."""
        self._pictures.add(event, work)
        return b""

    async def prepare(self) -> None:
        """Keep the pictures that are fetched by URL, before the body says where."""
        for picture in self._pictures.whole if self._as_url else ():
            name = await self._services.blobs.put(bytes(picture))
            self._urls.append(f"{self._base}/v1/images/{name}")

    def last(self, ending: Ending, work: Work) -> Body:
        """The whole body."""
        assert isinstance(ending, Rendered), "the task's ending"
        usage = ImagesUsage(ending.usage.quantity / 1_000_000, usd(work.cost_nanos))
        long = LongJson()
        if self._as_url:
            data = [ImageData(None, url) for url in self._urls]
        else:
            whole = self._pictures.whole
            data = [ImageData(long.text(base64_pieces(one)), None) for one in whole]
        created = self._services.clock.unix_ns() // 1_000_000_000
        return long.pieces(_encode(ImagesOut(created, data, work.order.card.name, usage)))

    def failed(self, error: InferdError) -> bytes:
        """Never streamed."""
        return stream_event(error)

    def headers(self) -> single.Headers:
        """JSON."""
        return []


def base_url(exchange: Exchange, services: Services) -> str:
    """Where the caller sees this server."""
    return services.options.public_url or exchange.origin
