"""POST /v1[/openai]/audio/speech (deepinfra-api 4.7)."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import inference, single
from inferd.api.errors import stream_event
from inferd.api.exchange import Exchange
from inferd.api.services import Services
from inferd.api.spoken import RawAudio, chosen_voice
from inferd.errors import InferdError, UnsupportedField
from inferd.money import usd
from inferd.tasks.base import Chunk
from inferd.tasks.every import Ending, Event
from inferd.tasks.text_to_speech import TEXT_CHARACTERS_MAX, AudioFormat, SpeechRequest

Speed = Annotated[float, Meta(ge=0.25, le=4)]
Text = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARACTERS_MAX)]


class VoiceRef(msgspec.Struct, frozen=True):
    """OpenAI's object form of a voice."""

    id: str


class SpeechIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    model: str
    input: Text
    voice: str | VoiceRef | None = None
    response_format: AudioFormat | None = "wav"
    speed: Speed | None = 1.0
    stream_format: Literal["audio", "sse"] | None = "audio"
    instructions: Annotated[str, Meta(max_length=4096)] | None = None
    """Ignored, as by OpenAI's own models that take none: no model here is told how to speak."""
    language: str | None = None
    extra_body: dict[str, Any] | None = None
    service_tier: str | None = None
    fail_fast: bool | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None


class SpeechUsage(msgspec.Struct, frozen=True):
    """Characters spoken and what they cost."""

    input_characters: int
    estimated_cost: float


class AudioDelta(msgspec.Struct, frozen=True):
    """A piece of sound of a stream, in base64."""

    audio: str
    type: str = "speech.audio.delta"


class AudioDone(msgspec.Struct, frozen=True):
    """The end of a stream."""

    usage: SpeechUsage
    type: str = "speech.audio.done"


_DECODER = msgspec.json.Decoder(SpeechIn)
_encode = msgspec.json.Encoder().encode


async def speech(exchange: Exchange, services: Services) -> None:
    """Speak."""
    body = await inference.read(exchange, services, _DECODER)
    card = inference.find_model(services, body.model, "text-to-speech")
    audio_format: AudioFormat = body.response_format or "wav"
    _check(body)
    voice = body.voice.id if isinstance(body.voice, VoiceRef) else body.voice
    chosen = await chosen_voice(exchange, services, card, voice, "voice")
    request = SpeechRequest(
        model=card.name,
        text=body.input,
        voices=chosen.names,
        recordings=chosen.recordings,
        language=body.language or None,
        speed=body.speed or 1.0,
        audio_format=audio_format,
    )
    order = single.order(
        exchange,
        card,
        request,
        "openai",
        streamed=True,
        tier=body.service_tier,
        fail_fast=bool(body.fail_fast),
        end_user=body.user,
    )
    if body.stream_format == "sse":
        await single.answer(exchange, services, order, _Events(), "events")
    else:
        await single.answer(exchange, services, order, RawAudio(audio_format), "bytes")


def _check(body: SpeechIn) -> None:
    if body.extra_body:
        raise UnsupportedField(
            f"extra_body has no field {next(iter(body.extra_body))[:64]!r} here.",
            param="extra_body",
        )


class _Events:
    """OpenAI's events."""

    def say(self, event: Event, work: Work) -> bytes:
        """A piece of sound."""
        if not isinstance(event, Chunk):
            return b""
        return b"data: " + _encode(AudioDelta(b64encode(event.data).decode())) + b"\n\n"

    def last(self, ending: Ending, work: Work) -> bytes:
        """What it cost."""
        characters = ending.usage.quantity // 1_000_000
        done = AudioDone(SpeechUsage(characters, usd(work.cost_nanos)))
        return b"data: " + _encode(done) + b"\n\ndata: [DONE]\n\n"

    def failed(self, error: InferdError) -> bytes:
        """The last event of a broken stream."""
        return stream_event(error)

    def headers(self) -> single.Headers:
        """Those of events."""
        return []
