"""Text to video: one film as `Chunk`s of index 0 (deepinfra-api 3.8, 4.10)."""

from __future__ import annotations

import msgspec

from inferd.tasks.base import Usage
from inferd.tasks.media import Media

SECONDS_MAX = 60


class VideoRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="text-to-video"):
    """One validated request. None: as the card says."""

    model: str
    prompt: str
    negative_prompt: str = ""
    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    frames_per_second: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    """None: drawn by the engine, and told at the end."""
    style: str = ""
    image: Media | None = None
    """The first frame."""


class Filmed(msgspec.Struct, frozen=True, array_like=True, tag="filmed"):
    """The film is whole; the last event. `quantity` of its usage is its length."""

    mime: str
    seed: int
    width: int
    height: int
    duration_ms: int
    frames: int
    usage: Usage


TextToVideoEvent = Filmed
