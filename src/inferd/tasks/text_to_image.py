"""Text to image, also from an image: the pictures come as `Chunk`s, one index each.

Pictures are made one after another; the `Preview`s of one come before its own bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from inferd.tasks.base import CHUNK_BYTES_MAX, MICRO, Usage
from inferd.tasks.media import Media

ImageFormat = Literal["png", "jpeg", "webp"]
IMAGES_MAX = 4
PREVIEWS_MAX = 3
SIDE_MIN, SIDE_MAX = 32, 2048
STEPS_MAX = 200
UNIT_PIXELS = 1024 * 1024


class ImageRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="text-to-image"):
    """One validated request. None: as the card says."""

    model: str
    prompt: str
    negative_prompt: str = ""
    n: int = 1
    width: int = 1024
    height: int = 1024
    steps: int | None = None
    guidance: float | None = None
    """Strength of classifier-free guidance."""
    seed: int | None = None
    """None: drawn by the engine, and told at the end."""
    image: Media | None = None
    """Where to start from instead of noise."""
    mask: Media | None = None
    """Where `image` may change: its transparent pixels, or its white ones if it has no alpha."""
    strength: float | None = None
    """0 keeps `image`, 1 forgets it."""
    image_format: ImageFormat = "png"
    lora_scale: float | None = None
    previews: int = 0
    """How often to show each picture on its way, at most: an engine may show it less often."""


def image_quantity(request: ImageRequest, steps: int, default_steps: int) -> int:
    """Millionths of image units: width × height ÷ 2²⁰ × steps ÷ default steps, for each image."""
    total = request.width * request.height * steps * request.n * MICRO
    unit = UNIT_PIXELS * default_steps
    return (2 * total + unit) // (2 * unit)


class Rendered(msgspec.Struct, frozen=True, array_like=True, tag="rendered"):
    """All pictures are whole; the last event."""

    count: int
    mime: str
    seed: int
    """Of the first image; the next ones follow it by one each."""
    steps: int
    usage: Usage


class Preview(msgspec.Struct, frozen=True, array_like=True, tag="preview"):
    """Bytes of what a picture is going to be, as the model has it now: a file of its own."""

    index: int
    """Which picture, from 0."""
    number: int
    """Which of its previews, from 0."""
    data: bytes
    """At most CHUNK_BYTES_MAX."""
    whole: bool
    """True: no more bytes of this preview follow."""
    usage: Usage


def preview_steps(first: int, last: int, previews: int) -> list[int]:
    """After how many steps to show previews: spread evenly between the first and the last."""
    spread = (first + (last - first) * at // (previews + 1) for at in range(1, previews + 1))
    return sorted({step for step in spread if first < step < last})


def preview_pieces(index: int, number: int, data: bytes, usage: Usage) -> Iterator[Preview]:
    """A preview in pieces that a worker may send."""
    for at in range(0, len(data), CHUNK_BYTES_MAX):
        end = at + CHUNK_BYTES_MAX
        yield Preview(index, number, data[at:end], end >= len(data), usage)


TextToImageEvent = Rendered | Preview
