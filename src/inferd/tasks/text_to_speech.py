"""Text to speech: text in, spoken audio out as `Chunk`s of index 0 (deepinfra-api 3.6, 4.7)."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.tasks.base import Usage
from inferd.tasks.media import Media

AudioFormat = Literal["wav", "mp3", "opus", "flac", "pcm"]
"""pcm: signed 16 bit, little-endian, mono, at the model's own rate."""

TEXT_CHARACTERS_MAX = 50_000


class SpeechRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="text-to-speech"):
    """One validated request."""

    model: str
    text: str
    """1 to TEXT_CHARACTERS_MAX characters."""
    voices: tuple[str, ...] = ()
    """Several are mixed in equal parts; none: the card's default."""
    recordings: tuple[Media, ...] = ()
    """Of the voice to speak in, in the place of `voices`, for models that take some."""
    language: str | None = None
    """Such as `en-us`; None: the voice's own."""
    speed: float = 1.0
    """0.25 to 4."""
    audio_format: AudioFormat = "wav"
    sample_rate: int | None = None
    """Hertz; None: the model's own."""
    bit_rate: int | None = None
    """Bits in a second, of formats that have one; None: the encoder's choice."""
    word_times: bool = False


class SpokenWord(msgspec.Struct, frozen=True, array_like=True):
    """One word and when it is said, in seconds from the start."""

    text: str
    start: float
    end: float


class Spoken(msgspec.Struct, frozen=True, array_like=True, tag="spoken"):
    """All was said; the last event. `quantity` of its usage is the characters spoken."""

    duration_ms: int
    sample_rate: int
    words: tuple[SpokenWord, ...]
    """Empty unless asked for."""
    usage: Usage


TextToSpeechEvent = Spoken
