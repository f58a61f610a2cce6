"""POST /v1/text-to-speech/{voice_id} and …/stream, as ElevenLabs' clients call it."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Meta

from inferd.api import inference, single
from inferd.api.exchange import Exchange
from inferd.api.openai.speech import Speed, Text
from inferd.api.services import Services
from inferd.api.spoken import RawAudio, WholeAudio, chosen_voice
from inferd.errors import BadRequest, NotFound, UnsupportedField
from inferd.tasks.text_to_speech import AudioFormat, SpeechRequest

MODEL_DEFAULT = "hexgrad/Kokoro-82M"
_FORMAT = re.compile(r"(mp3|opus|flac|wav|pcm)(?:_([0-9]{4,6}))?(?:_([0-9]{2,3}))?")
_RATES = (8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_OPUS_RATES = (8000, 16_000, 24_000, 48_000)


class VoiceSettings(msgspec.Struct, frozen=True):
    """Of ElevenLabs' settings the speed has its effect; the others are of their models."""

    speed: Speed | None = None


class ElevenLabsSpeechIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    text: Text
    model_id: str | None = MODEL_DEFAULT
    output_format: Annotated[str, Meta(max_length=32)] | None = None
    language_code: Annotated[str, Meta(max_length=32)] | None = None
    voice_settings: VoiceSettings | None = None
    seed: Any = None
    """Ignored: the models here say the same text the same way each time."""
    pronunciation_dictionary_locators: Any = None
    """Refused, like the one below: they would have to change what is heard."""
    audio_effects: Any = None


class _Format(msgspec.Struct, frozen=True):
    audio_format: AudioFormat
    sample_rate: int | None
    bit_rate: int | None


_DECODER = msgspec.json.Decoder(ElevenLabsSpeechIn)


async def elevenlabs_speech(exchange: Exchange, services: Services) -> None:
    """Speak; below …/stream send it as it is spoken, else whole."""
    voice, slash, more = exchange.rest.partition("/")
    if slash and more != "stream":
        raise NotFound("Not Found")
    body = await inference.read(exchange, services, _DECODER)
    for name in ("pronunciation_dictionary_locators", "audio_effects"):
        if getattr(body, name):
            raise UnsupportedField(f"{name} is not supported by this model.", param=name)
    query = parse_qs(exchange.query.decode("latin-1"))
    wanted = _wanted(query.get("output_format", [body.output_format or "wav"])[0])
    card = inference.find_model(services, body.model_id or MODEL_DEFAULT, "text-to-speech")
    settings = body.voice_settings
    chosen = await chosen_voice(exchange, services, card, unquote(voice), "voice_id")
    request = SpeechRequest(
        model=card.name,
        text=body.text,
        voices=chosen.names,
        recordings=chosen.recordings,
        language=body.language_code or None,
        speed=(settings.speed if settings else None) or 1.0,
        audio_format=wanted.audio_format,
        sample_rate=wanted.sample_rate,
        bit_rate=wanted.bit_rate,
    )
    streamed = bool(slash)
    order = single.order(exchange, card, request, "elevenlabs", streamed=streamed)
    if streamed:
        await single.answer(exchange, services, order, RawAudio(wanted.audio_format), "bytes")
    else:
        await single.answer(exchange, services, order, WholeAudio(wanted.audio_format))


def _wanted(given: str) -> _Format:
    """`mp3`, or `mp3_44100_128`: codec, hertz, kilobits in a second."""
    found = _FORMAT.fullmatch(given)
    rate = int(found[2]) if found and found[2] else None
    codec: Any = found[1] if found else ""
    allowed = _OPUS_RATES if codec == "opus" else _RATES
    if found is None or (rate is not None and rate not in allowed):
        raise BadRequest(
            "output_format is mp3, opus, flac, wav or pcm, with a usual rate behind it as in "
            "mp3_44100_128.",
            param="output_format",
        )
    bits = int(found[3]) * 1000 if found[3] else None
    if bits is not None and not 16_000 <= bits <= 320_000:
        raise BadRequest("The bit rate is 16 to 320 kilobits.", param="output_format")
    return _Format(codec, rate, bits if codec in ("mp3", "opus") else None)
