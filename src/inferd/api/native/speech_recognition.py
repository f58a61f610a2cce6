"""Native speech recognition (deepinfra-api 3.5)."""

from __future__ import annotations

from math import exp
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import single
from inferd.api.deferred import take_webhook
from inferd.api.exchange import Exchange
from inferd.api.media import read_with_media
from inferd.api.native.envelope import InferenceStatus, NativeTeller, succeeded
from inferd.api.openai.transcriptions import (
    PROMPT_CHARACTERS_MAX,
    plain_text,
    seconds_bound,
)
from inferd.api.services import Services
from inferd.api.transcripts import language_code
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest
from inferd.tasks.every import Ending, Event
from inferd.tasks.speech_recognition import Segment, Transcribed, TranscriptionRequest, Word

SUPPRESSED_MAX = 256
STEPS_OF_TEMPERATURE = 1.0


class SpeechRecognitionIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body. Defaults are Whisper's own."""

    audio: str
    task: Literal["transcribe", "translate"] | None = "transcribe"
    language: Annotated[str, Meta(max_length=64)] | None = None
    initial_prompt: Annotated[str, Meta(max_length=PROMPT_CHARACTERS_MAX)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = 0.0
    temperature_increment_on_fallback: Annotated[float, Meta(ge=0, le=1)] | None = 0.2
    patience: Annotated[float, Meta(gt=0, le=10)] | None = 1.0
    suppress_tokens: Annotated[str, Meta(max_length=4096)] | None = "-1"
    condition_on_previous_text: bool | None = True
    compression_ratio_threshold: Annotated[float, Meta(ge=0, le=1000)] | None = 2.4
    logprob_threshold: Annotated[float, Meta(ge=-1000, le=0)] | None = -1.0
    no_speech_threshold: Annotated[float, Meta(ge=0, le=1)] | None = 0.6
    chunk_level: Literal["segment", "word"] | None = "segment"
    chunk_length_s: Annotated[float, Meta(ge=1, le=30)] | None = 30
    stream: bool | None = False
    service_tier: str | None = None
    webhook: str | None = None


class WordOut(msgspec.Struct, frozen=True):
    """One word."""

    text: str
    start: float
    end: float
    confidence: float


class SegmentOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """One segment."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    confidence: float
    words: list[WordOut] | None = None


class SpeechRecognitionOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """The response body."""

    request_id: str
    inference_status: InferenceStatus
    text: str
    segments: list[SegmentOut]
    language: str
    input_length_ms: int
    words: list[WordOut] | None = None


class SegmentEvent(msgspec.Struct, frozen=True):
    """An event of a stream; the last one is the whole body."""

    segment: SegmentOut


_DECODER = msgspec.json.Decoder(SpeechRecognitionIn)
_encode = msgspec.json.Encoder().encode


async def speech_recognition(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Write down what is said."""
    body, door = await read_with_media(exchange, services, _DECODER, SpeechRecognitionIn)
    take_webhook(exchange, body.webhook)
    audio = await door.take(body.audio, "audio", "audio")
    condition = body.condition_on_previous_text
    request = TranscriptionRequest(
        model=card.name,
        audio=audio,
        seconds_max=seconds_bound(audio, services.options),
        task=body.task or "transcribe",
        language=language_code(body.language),
        initial_prompt=body.initial_prompt or None,
        temperatures=_temperatures(body),
        patience=body.patience or 1.0,
        suppress_tokens=_suppressed(body.suppress_tokens),
        condition_on_previous_text=True if condition is None else condition,
        compression_ratio_threshold=body.compression_ratio_threshold,
        logprob_threshold=body.logprob_threshold,
        no_speech_threshold=body.no_speech_threshold,
        word_times=body.chunk_level == "word",
        chunk_seconds=_whole_seconds(body.chunk_length_s),
    )
    streamed = bool(body.stream)
    order = single.order(
        exchange, card, request, "native", streamed=streamed, tier=body.service_tier
    )
    teller = _Teller(streamed=streamed, words=request.word_times)
    await single.answer(exchange, services, order, teller, "events" if streamed else "whole")


def _temperatures(body: SpeechRecognitionIn) -> tuple[float, ...]:
    """The first, and those tried when it fails, up to 1."""
    first = body.temperature or 0.0
    step = body.temperature_increment_on_fallback
    if not step:
        return (first,)
    step = max(step, 0.05)
    count = int((STEPS_OF_TEMPERATURE - first) / step + 1e-6) + 1
    return tuple(round(first + index * step, 6) for index in range(count))


def _suppressed(given: str | None) -> tuple[int, ...]:
    """Token ids, separated by commas."""
    if not given:
        return ()
    try:
        ids = tuple(int(one) for one in given.split(","))
    except ValueError:
        ids = (-2,)
    if len(ids) > SUPPRESSED_MAX or not all(-1 <= one < 1 << 20 for one in ids):
        raise BadRequest(
            "suppress_tokens holds token ids, separated by commas.", param="suppress_tokens"
        )
    return ids


def _word(word: Word) -> WordOut:
    confidence = round(word.confidence, 4)
    return WordOut(word.text.strip(), round(word.start, 3), round(word.end, 3), confidence)


def _segment(one: Segment, *, words: bool) -> SegmentOut:
    return SegmentOut(
        one.id,
        one.seek,
        round(one.start, 3),
        round(one.end, 3),
        one.text,
        one.tokens,
        one.temperature,
        one.avg_logprob,
        one.compression_ratio,
        one.no_speech_prob,
        confidence=round(exp(one.avg_logprob), 4),
        words=[_word(word) for word in one.words] if words else None,
    )


def _whole_seconds(given: float | None) -> int:
    """`15.0` is 15. Raises BadRequest for a part of a second."""
    if given is None:
        return 30
    if given % 1:
        raise BadRequest("chunk_length_s is whole seconds.", param="chunk_length_s")
    return int(given)


class _Teller(NativeTeller):
    def __init__(self, *, streamed: bool, words: bool) -> None:
        self._streamed = streamed
        self._words = words
        self._segments: list[Segment] = []

    def say(self, event: Event, work: Work) -> bytes:
        if not isinstance(event, Segment):
            return b""
        self._segments.append(event)
        if not self._streamed:
            return b""
        told = SegmentEvent(_segment(event, words=self._words))
        return b"data: " + _encode(told) + b"\n\n"

    def last(self, ending: Ending, work: Work) -> bytes:
        assert isinstance(ending, Transcribed), "the task's ending"
        segments = [_segment(one, words=self._words) for one in self._segments]
        words = [word for one in segments for word in one.words or ()]
        body = _encode(
            SpeechRecognitionOut(
                work.order.request_id,
                succeeded(work, ending.usage),
                plain_text(self._segments),
                segments,
                ending.language,
                ending.duration_ms,
                words if self._words else None,
            )
        )
        return b"data: " + body + b"\n\ndata: [DONE]\n\n" if self._streamed else body
