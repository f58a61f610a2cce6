"""Automatic speech recognition: a recording in, timed text out (deepinfra-api 3.5, 4.7)."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.tasks.base import Usage
from inferd.tasks.media import Media

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class SpeechFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Finds what is speech, so that the rest is not heard. Defaults are the detector's own."""

    threshold: float = 0.5
    """0 to 1: how likely speech has to be."""
    silence_ms: int = 2000
    """A shorter pause belongs to the speech around it."""
    padding_ms: int = 400
    """Kept before and after speech."""


class TranscriptionRequest(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="automatic-speech-recognition"
):
    """One validated request. Defaults are Whisper's own."""

    model: str
    audio: Media
    seconds_max: float
    """Longer recordings are refused: what money was set aside for."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """translate: into English."""
    language: str | None = None
    """ISO 639-1; None: heard from the first seconds."""
    initial_prompt: str | None = None
    temperatures: tuple[float, ...] = TEMPERATURES
    """Tried in turn while a window's text is too repetitive or too unlikely."""
    patience: float = 1.0
    suppress_tokens: tuple[int, ...] = (-1,)
    """-1: the model's own list of symbols that nobody says."""
    condition_on_previous_text: bool = True
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    word_times: bool = False
    chunk_seconds: int = 30
    """1 to 30: how much the model hears at once."""
    vad: SpeechFilter | None = None
    """None: all of the recording is heard."""


class Word(msgspec.Struct, frozen=True, array_like=True):
    """One word and when it is said, in seconds from the start."""

    text: str
    start: float
    end: float
    confidence: float
    """0 to 1."""


class Segment(msgspec.Struct, frozen=True, array_like=True, tag="segment"):
    """The next piece of the transcript, in order."""

    id: int
    seek: int
    """Where its window starts, in frames of 10 ms."""
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    usage: Usage
    """`quantity` is the audio heard so far."""
    words: tuple[Word, ...] = ()


class Transcribed(msgspec.Struct, frozen=True, array_like=True, tag="transcribed"):
    """The end of the recording; the last event."""

    language: str
    """ISO 639-1."""
    duration_ms: int
    """Of the whole recording."""
    usage: Usage


SpeechRecognitionEvent = Segment | Transcribed
