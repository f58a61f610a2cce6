"""Native text to speech (deepinfra-api 3.6): JSON with a data URL, not raw audio."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import inference, single
from inferd.api.deferred import take_webhook
from inferd.api.exchange import Exchange
from inferd.api.native.envelope import InferenceStatus, NativeTeller, succeeded
from inferd.api.openai.speech import Speed, Text
from inferd.api.services import Services
from inferd.api.slices import Body, LongJson, base64_pieces
from inferd.api.spoken import MIMES, VOICES_MAX, RawAudio, chosen_voice, whole_wav
from inferd.catalog.card import ModelCard
from inferd.tasks.base import Chunk
from inferd.tasks.every import Ending, Event
from inferd.tasks.text_to_speech import AudioFormat, SpeechRequest, Spoken


class TextToSpeechIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    text: Text
    output_format: AudioFormat | None = "wav"
    preset_voice: str | Annotated[list[str], Meta(max_length=VOICES_MAX)] | None = None
    voice_id: str | None = None
    language_code: Annotated[str, Meta(max_length=32)] | None = None
    speed: Speed | None = 1.0
    stream: bool | None = False
    return_timestamps: bool | None = False
    service_tier: str | None = None
    webhook: str | None = None


class WordOut(msgspec.Struct, frozen=True):
    """One word and when it is said, in seconds."""

    text: str
    start: float
    end: float


class TextToSpeechOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """The response body."""

    request_id: str
    inference_status: InferenceStatus
    audio: str
    """A data URL."""
    input_character_length: int
    output_format: AudioFormat
    words: list[WordOut] | None = None


_DECODER = msgspec.json.Decoder(TextToSpeechIn)
_encode = msgspec.json.Encoder().encode


async def text_to_speech(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Speak."""
    body = await inference.read_form_or_json(exchange, services, _DECODER, TextToSpeechIn)
    take_webhook(exchange, body.webhook)
    param = "voice_id" if body.voice_id else "preset_voice"
    chosen = await chosen_voice(exchange, services, card, body.voice_id or body.preset_voice, param)
    request = SpeechRequest(
        model=card.name,
        text=body.text,
        voices=chosen.names,
        recordings=chosen.recordings,
        language=body.language_code or None,
        speed=body.speed or 1.0,
        audio_format=body.output_format or "wav",
        word_times=bool(body.return_timestamps),
    )
    streamed = bool(body.stream)
    order = single.order(
        exchange, card, request, "native", streamed=streamed, tier=body.service_tier
    )
    if streamed:
        raw = RawAudio(request.audio_format)
        await single.answer(exchange, services, order, raw, "bytes")
    else:
        await single.answer(exchange, services, order, _Teller(request))


class _Teller(NativeTeller):
    def __init__(self, request: SpeechRequest) -> None:
        self._request = request
        self._audio = bytearray()

    def say(self, event: Event, work: Work) -> bytes:
        if isinstance(event, Chunk):
            self._audio += event.data
        return b""

    def last(self, ending: Ending, work: Work) -> Body:
        assert isinstance(ending, Spoken), "the task's ending"
        request = self._request
        audio = whole_wav(self._audio) if request.audio_format == "wav" else self._audio
        mime = MIMES[request.audio_format].decode()
        words = [WordOut(word.text, word.start, word.end) for word in ending.words]
        long = LongJson()
        told = TextToSpeechOut(
            work.order.request_id,
            succeeded(work, ending.usage),
            f"data:{mime};base64,{long.text(base64_pieces(audio))}",
            len(request.text),
            request.audio_format,
            words if request.word_times else None,
        )
        return long.pieces(_encode(told))
