"""Text to image, also from an image: the pictures come as `Chunk`s, one index each."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.tasks.base import MICRO, Usage
from inferd.tasks.media import Media

ImageFormat = Literal["png", "jpeg", "webp"]
IMAGES_MAX = 4
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


TextToImageEvent = Rendered
