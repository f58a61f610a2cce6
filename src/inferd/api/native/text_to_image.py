"""Native text to image (deepinfra-api 3.7), and the `{"input": {…}}` of SDXL's cog."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import single
from inferd.api.deferred import take_webhook
from inferd.api.errors import FieldInvalid
from inferd.api.exchange import Exchange
from inferd.api.media import MediaDoor, read_with_media
from inferd.api.native.envelope import InferenceStatus, NativeTeller, succeeded
from inferd.api.pictures import (
    PROMPT_CHARACTERS_MAX,
    Pictures,
    check_size,
    default_size,
    parse_ratio,
)
from inferd.api.services import Services
from inferd.api.slices import Body, LongJson, base64_pieces, framed
from inferd.catalog.card import ModelCard
from inferd.errors import UnsupportedField
from inferd.tasks.base import Progress
from inferd.tasks.every import Ending, Event
from inferd.tasks.text_to_image import IMAGES_MAX, STEPS_MAX, ImageRequest, Rendered

Count = Annotated[int, Meta(ge=1, le=IMAGES_MAX)]
Steps = Annotated[int, Meta(ge=1, le=STEPS_MAX)]
Side = Annotated[int, Meta(ge=1, le=100_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(max_length=PROMPT_CHARACTERS_MAX)]


class CogInput(msgspec.Struct, frozen=True, kw_only=True):
    """The input of SDXL's cog."""

    prompt: Text | None = None
    negative_prompt: Text | None = None
    image: str | None = None
    mask: str | None = None
    width: Side | None = None
    height: Side | None = None
    num_outputs: Count | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Annotated[float, Meta(ge=0, le=100)] | None = None
    prompt_strength: Share | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    scheduler: Any = None
    refine: Any = None


class TextToImageIn(CogInput, frozen=True, kw_only=True):
    """The request body."""

    input: CogInput | None = None
    num_images: Count | None = None
    strength: Share | None = None
    aspect_ratio: Annotated[str, Meta(max_length=16)] | None = None
    use_compel: bool | None = None
    lora_scale: Share | None = None
    stream: bool | None = False
    service_tier: str | None = None
    webhook: str | None = None


class TextToImageOut(msgspec.Struct, frozen=True):
    """The response body."""

    request_id: str
    inference_status: InferenceStatus
    images: list[str]
    """Data URLs."""
    nsfw_content_detected: list[bool]
    """Nothing looks for it here: always false."""
    seed: int


class CogOut(msgspec.Struct, frozen=True):
    """The response body of SDXL's cog, its misspelling included."""

    status: str
    output: list[str]
    error: None
    logs: str
    metrics: dict[str, float]
    input: CogInput
    request_id: str
    inference_status: InferenceStatus
    started_at: str
    completed_at: str
    complated_at: str
    created_at: None = None
    version: None = None


class Step(msgspec.Struct, frozen=True):
    """How far the drawing is."""

    step: int
    steps: int


class ProgressEvent(msgspec.Struct, frozen=True):
    """An event of a stream; the last one is the whole body."""

    progress: Step


_DECODER = msgspec.json.Decoder(TextToImageIn, strict=False)
_encode = msgspec.json.Encoder().encode


async def text_to_image(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Draw."""
    body, door = await read_with_media(exchange, services, _DECODER, TextToImageIn)
    take_webhook(exchange, body.webhook)
    _check(body)
    request = await _request(card, body, door)
    streamed = bool(body.stream)
    order = single.order(
        exchange, card, request, "native", streamed=streamed, tier=body.service_tier
    )
    teller = _Teller(services, body.input, streamed=streamed)
    await single.answer(exchange, services, order, teller, "events" if streamed else "whole")


def _check(body: TextToImageIn) -> None:
    given = body.input or body
    for name, value in (
        ("use_compel", body.use_compel),
        ("lora_scale", body.lora_scale),
        ("scheduler", given.scheduler),
        ("refine", given.refine),
    ):
        if value not in (None, False, "", "no_refiner"):
            raise UnsupportedField(f"The models here have no {name}.", param=name)


async def _request(card: ModelCard, body: TextToImageIn, door: MediaDoor) -> ImageRequest:
    given = body.input or body
    if not given.prompt:
        path = "input.prompt" if body.input else "prompt"
        raise FieldInvalid(
            f"{path}: Field required.", param=path, fault="missing", said="Field required", given={}
        )
    width, height = _size(card, body, given)
    strength = body.strength if body.strength is not None else given.prompt_strength
    return ImageRequest(
        model=card.name,
        prompt=given.prompt,
        negative_prompt=given.negative_prompt or "",
        n=body.num_images or given.num_outputs or 1,
        width=width,
        height=height,
        steps=given.num_inference_steps,
        guidance=given.guidance_scale,
        seed=given.seed,
        image=await door.take(given.image, "image", "image") if given.image else None,
        mask=await door.take(given.mask, "image", "mask") if given.mask else None,
        strength=strength if given.image else None,
    )


def _size(card: ModelCard, body: TextToImageIn, given: CogInput) -> tuple[int, int]:
    if body.aspect_ratio and given.width is None and given.height is None:
        return parse_ratio(body.aspect_ratio, card)
    width, height = default_size(card)
    width, height = given.width or width, given.height or height
    check_size(width, height, "width")
    return width, height


class _Teller(NativeTeller):
    def __init__(self, services: Services, cog: CogInput | None, *, streamed: bool) -> None:
        self._services = services
        self._cog = cog
        self._streamed = streamed
        self._pictures = Pictures()
        self._began_ns = services.clock.unix_ns()

    def say(self, event: Event, work: Work) -> bytes:
        self._pictures.add(event, work)
        if self._streamed and isinstance(event, Progress):
            return b"data: " + _encode(ProgressEvent(Step(event.step, event.steps))) + b"\n\n"
        return b""

    def last(self, ending: Ending, work: Work) -> Body:
        assert isinstance(ending, Rendered), "the task's ending"
        long = LongJson()
        images = [
            f"data:{ending.mime};base64,{long.text(base64_pieces(one))}"
            for one in self._pictures.whole
        ]
        status = succeeded(work, ending.usage)
        request_id = work.order.request_id
        if self._cog is not None:
            body = _encode(self._as_cog(images, status, request_id))
        else:
            clean = [False] * len(images)
            body = _encode(TextToImageOut(request_id, status, images, clean, ending.seed))
        pieces = long.pieces(body)
        return framed(pieces) if self._streamed else pieces

    def _as_cog(self, images: list[str], status: InferenceStatus, request_id: str) -> CogOut:
        assert self._cog is not None, "asked for so"
        now_ns = self._services.clock.unix_ns()
        began, ended = (
            datetime.fromtimestamp(ns / 1e9, UTC).isoformat() for ns in (self._began_ns, now_ns)
        )
        seconds = (now_ns - self._began_ns) / 1e9
        return CogOut(
            status="succeeded",
            output=images,
            error=None,
            logs="",
            metrics={"predict_time": seconds},
            input=msgspec.structs.replace(self._cog, image=None, mask=None),
            request_id=request_id,
            inference_status=status,
            started_at=began,
            completed_at=ended,
            complated_at=ended,
        )
