"""POST /v1/videos, GET /v1/videos/{id} and …/content (deepinfra-api 4.10)."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta

from inferd.api import inference, single
from inferd.api.exchange import Exchange
from inferd.api.files import respond_file
from inferd.api.media import read_with_media
from inferd.api.native.text_to_image import Text
from inferd.api.native.text_to_video import Seconds, Seed, check_film, video_size
from inferd.api.openai.images import base_url
from inferd.api.services import Services
from inferd.errors import BadRequest, Conflict, NotFound, UnsupportedField
from inferd.storage.rows import JobRow
from inferd.tasks.text_to_video import VideoRequest

POLL = (b"openai-poll-after-ms", b"500")
"""How long OpenAI's clients wait before they ask again."""


class VideoIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    model: str
    prompt: Annotated[str, Meta(min_length=1, max_length=32_000)]
    negative_prompt: Text | None = None
    aspect_ratio: Annotated[str, Meta(max_length=16)] | None = None
    size: Annotated[str, Meta(max_length=32)] | None = None
    seconds: Seconds | None = None
    seed: Seed | None = None
    style: Annotated[str, Meta(max_length=256)] | None = None
    image_url: str | None = None
    input_reference: str | None = None
    """OpenAI's name for the first frame."""
    service_tier: str | None = None
    webhook: Any = None


class VideoUrl(msgspec.Struct, frozen=True):
    """Where a film is."""

    url: str


class VideoOut(msgspec.Struct, frozen=True):
    """A job."""

    id: str
    created_at: int
    status: str
    """queued, in_progress, succeeded or failed."""
    model: str
    data: list[VideoUrl] | None
    error: str | None
    object: str = "video.generation.job"


_DECODER = msgspec.json.Decoder(VideoIn, strict=False)


async def create_video(exchange: Exchange, services: Services) -> None:
    """Begin a film; its status is asked for afterwards."""
    body, door = await read_with_media(exchange, services, _DECODER, VideoIn)
    if body.webhook is not None:
        raise BadRequest("webhook is not supported yet.", param="webhook")
    card = inference.find_model(services, body.model, "text-to-video")
    width, height = video_size(card, body.size, body.aspect_ratio)
    first = body.image_url or body.input_reference
    check_film(card, body.seconds, "image_url" if body.image_url else "input_reference", first)
    request = VideoRequest(
        model=card.name,
        prompt=body.prompt,
        negative_prompt=body.negative_prompt or "",
        seconds=body.seconds,
        width=width,
        height=height,
        seed=body.seed,
        style=body.style or "",
        image=await door.take(first, "image", "image_url") if first else None,
    )
    if await services.idempotency.replayed(exchange, card.name):
        return
    order = single.order(exchange, card, request, "openai", tier=body.service_tier)
    row = await _begun(exchange, services) or await services.videos.submit(exchange.caller, order)
    await exchange.respond(200, msgspec.json.encode(_job(row, exchange, services)))


async def _begun(exchange: Exchange, services: Services) -> JobRow | None:
    """The film that this call had begun before its process died."""
    before = exchange.recorder.before if exchange.recorder is not None else None
    return None if before is None else await services.videos.begun_by(exchange.caller, before)


async def show_video(exchange: Exchange, services: Services) -> None:
    """A job; below it, under …/content, its film."""
    job_id, slash, more = exchange.rest.partition("/")
    row = await services.videos.get(exchange.caller, job_id)
    if not slash:
        await exchange.respond(200, msgspec.json.encode(_job(row, exchange, services)), [POLL])
        return
    if more != "content":
        raise NotFound("Not Found")
    variant = parse_qs(exchange.query.decode("latin-1")).get("variant", ["video"])[0]
    if variant != "video":
        raise UnsupportedField(
            "There is the video alone: no thumbnail and no spritesheet is made.", param="variant"
        )
    if row.result is None:
        raise Conflict(row.error or f"The video is {row.status}; there is nothing to fetch yet.")
    film = await services.blobs.get(row.result)
    await respond_file(exchange, film, "video/mp4")


def _job(row: JobRow, exchange: Exchange, services: Services) -> VideoOut:
    base = base_url(exchange, services)
    urls = [VideoUrl(f"{base}/v1/images/{row.result}")] if row.result else None
    created = row.created_unix_ns // 1_000_000_000
    # The word that OpenAI's clients wait on.
    status = "in_progress" if row.status == "running" else row.status
    return VideoOut(row.id, created, status, row.model, urls, row.error)
