"""Native text to video (deepinfra-api 3.8): the film comes as data URL, under both names."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import single
from inferd.api.deferred import take_webhook
from inferd.api.exchange import Exchange
from inferd.api.media import read_with_media
from inferd.api.native.envelope import InferenceStatus, NativeTeller, succeeded
from inferd.api.native.text_to_image import ProgressEvent, Side, Step, Steps, Text
from inferd.api.pictures import Pictures, check_size, parse_ratio, parse_size
from inferd.api.services import Services
from inferd.api.slices import Body, LongJson, base64_pieces, framed
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest
from inferd.tasks.base import Progress
from inferd.tasks.every import Ending, Event
from inferd.tasks.text_to_video import SECONDS_MAX, Filmed, VideoRequest

Seconds = Annotated[float, Meta(gt=0, le=SECONDS_MAX)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class TextToVideoIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    prompt: Annotated[str, Meta(min_length=1, max_length=32_000)]
    negative_prompt: Text | None = None
    seconds: Seconds | None = None
    duration: Seconds | None = None
    aspect_ratio: Annotated[str, Meta(max_length=16)] | None = None
    size: Annotated[str, Meta(max_length=32)] | None = None
    resolution: Annotated[str, Meta(max_length=32)] | None = None
    width: Side | None = None
    height: Side | None = None
    fps: Annotated[int, Meta(ge=1, le=60)] | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Annotated[float, Meta(ge=0, le=100)] | None = None
    seed: Seed | None = None
    style: Annotated[str, Meta(max_length=256)] | None = None
    image: str | None = None
    stream: bool | None = False
    service_tier: str | None = None
    webhook: str | None = None


class TextToVideoOut(msgspec.Struct, frozen=True):
    """The response body."""

    request_id: str
    inference_status: InferenceStatus
    video: str
    """A data URL."""
    video_url: str
    """The same: clients read one or the other."""
    seed: int


_DECODER = msgspec.json.Decoder(TextToVideoIn, strict=False)
_encode = msgspec.json.Encoder().encode


async def text_to_video(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Film."""
    body, door = await read_with_media(exchange, services, _DECODER, TextToVideoIn)
    take_webhook(exchange, body.webhook)
    width, height = video_size(card, body.size or body.resolution, body.aspect_ratio)
    if body.width is not None or body.height is not None:
        width, height = body.width or body.height, body.height or body.width
        check_size(width or 0, height or 0, "width")
    check_film(card, body.seconds or body.duration, "image", body.image)
    request = VideoRequest(
        model=card.name,
        prompt=body.prompt,
        negative_prompt=body.negative_prompt or "",
        seconds=body.seconds or body.duration,
        width=width,
        height=height,
        frames_per_second=body.fps,
        steps=body.num_inference_steps,
        guidance=body.guidance_scale,
        seed=body.seed,
        style=body.style or "",
        image=await door.take(body.image, "image", "image") if body.image else None,
    )
    streamed = bool(body.stream)
    order = single.order(
        exchange, card, request, "native", streamed=streamed, tier=body.service_tier
    )
    manner = "events" if streamed else "whole"
    await single.answer(exchange, services, order, _Teller(streamed=streamed), manner)


def video_size(
    card: ModelCard, size: str | None, ratio: str | None
) -> tuple[int | None, int | None]:
    """Sides that were asked for; (None, None) where the model decides."""
    if size:
        return parse_size(size, card)
    return parse_ratio(ratio, card) if ratio else (None, None)


def check_film(card: ModelCard, seconds: float | None, image_field: str, image: str | None) -> None:
    """Raise BadRequest for what the model can never make, before anything is queued.

    A card says so in `seconds_max` and `first_frame`; where it does not, the engine decides.
    """
    longest = card.options.get("seconds_max")
    if longest is not None and seconds is not None and seconds > float(str(longest)):
        raise BadRequest(f"The model {card.name} makes at most {longest} seconds.", param="seconds")
    # The one engine that takes none, whatever its card says.
    takes = card.options.get("first_frame", card.engine != "emoji_flow")
    if image and not takes:
        raise BadRequest(f"The model {card.name} takes no first frame.", param=image_field)


class _Teller(NativeTeller):
    def __init__(self, *, streamed: bool) -> None:
        self._streamed = streamed
        self._film = Pictures()

    def say(self, event: Event, work: Work) -> bytes:
        self._film.add(event, work)
        if self._streamed and isinstance(event, Progress):
            return b"data: " + _encode(ProgressEvent(Step(event.step, event.steps))) + b"\n\n"
        return b""

    def last(self, ending: Ending, work: Work) -> Body:
        assert isinstance(ending, Filmed), "the task's ending"
        long, film = LongJson(), self._film.whole[0]
        one, other = (
            f"data:{ending.mime};base64,{long.text(base64_pieces(film))}" for _ in range(2)
        )
        status = succeeded(work, ending.usage)
        told = TextToVideoOut(work.order.request_id, status, one, other, ending.seed)
        pieces = long.pieces(_encode(told))
        return framed(pieces) if self._streamed else pieces
