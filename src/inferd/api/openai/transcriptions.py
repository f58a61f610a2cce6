"""POST /v1[/openai]/audio/transcriptions and …/translations (deepinfra-api 4.7)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import inference, single
from inferd.api.errors import stream_event
from inferd.api.exchange import Exchange
from inferd.api.media import read_with_media
from inferd.api.services import ApiOptions, Services
from inferd.api.transcripts import LANGUAGES, language_code, srt, vtt
from inferd.errors import BadRequest, InferdError, UnsupportedField
from inferd.money import usd
from inferd.tasks.every import Ending, Event
from inferd.tasks.media import Media
from inferd.tasks.speech_recognition import (
    TEMPERATURES,
    Segment,
    SpeechFilter,
    Transcribed,
    TranscriptionRequest,
    Word,
)

Format = Literal["json", "verbose_json", "text", "srt", "vtt"]
Granularity = Literal["segment", "word"]

PROMPT_CHARACTERS_MAX = 4096
GRACE_SECONDS = 60
BYTES_PER_SECOND_MIN = 400
"""Speech takes at least 6 kbit/s in Opus, or 750 bytes: fewer bytes cannot be a long recording."""


class ServerVad(msgspec.Struct, frozen=True, tag="server_vad", tag_field="type"):
    """How speech is told from silence. Defaults are the detector's own."""

    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    silence_duration_ms: Annotated[int, Meta(ge=0, le=60_000)] = 2000
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=10_000)] = 400


class TranscriptionIn(msgspec.Struct, frozen=True, kw_only=True):
    """The form."""

    model: str
    file: str
    """The recording."""
    language: Annotated[str, Meta(max_length=64)] | None = None
    prompt: Annotated[str, Meta(max_length=PROMPT_CHARACTERS_MAX)] | None = None
    response_format: Format | None = "json"
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = 0.0
    timestamp_granularities: list[Granularity] | None = None
    stream: bool | None = False
    chunking_strategy: Literal["auto"] | ServerVad | None = None
    include: list[str] | None = None
    service_tier: str | None = None
    fail_fast: bool | None = None


class WordOut(msgspec.Struct, frozen=True):
    """One word of verbose_json."""

    word: str
    start: float
    end: float


class SegmentOut(msgspec.Struct, frozen=True):
    """One segment of verbose_json."""

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


class AudioUsage(msgspec.Struct, frozen=True):
    """Seconds heard and what they cost."""

    seconds: float
    estimated_cost: float
    type: str = "duration"


class TranscriptOut(msgspec.Struct, frozen=True):
    """json."""

    text: str
    usage: AudioUsage


class VerboseOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """verbose_json."""

    task: str
    language: str
    duration: float
    text: str
    usage: AudioUsage
    segments: list[SegmentOut] | None = None
    words: list[WordOut] | None = None


class TranscriptDelta(msgspec.Struct, frozen=True):
    """New text of a stream."""

    delta: str
    type: str = "transcript.text.delta"


class TranscriptDone(msgspec.Struct, frozen=True):
    """The end of a stream."""

    text: str
    usage: AudioUsage
    type: str = "transcript.text.done"


_DECODER = msgspec.json.Decoder(TranscriptionIn)
_encode = msgspec.json.Encoder().encode


async def transcriptions(exchange: Exchange, services: Services) -> None:
    """Write down what is said, in its own language."""
    await _answer(exchange, services, "transcribe")


async def translations(exchange: Exchange, services: Services) -> None:
    """Write down what is said, in English."""
    await _answer(exchange, services, "translate")


async def _answer(
    exchange: Exchange, services: Services, task: Literal["transcribe", "translate"]
) -> None:
    body, door = await read_with_media(exchange, services, _DECODER, TranscriptionIn)
    card = inference.find_model(services, body.model, "automatic-speech-recognition")
    _check(body)
    audio = await door.take(body.file, "audio", "file")
    temperature = body.temperature or 0.0
    request = TranscriptionRequest(
        model=card.name,
        audio=audio,
        seconds_max=seconds_bound(audio, services.options),
        task=task,
        language=language_code(body.language) if task == "transcribe" else None,
        initial_prompt=body.prompt or None,
        temperatures=(temperature,) if temperature else TEMPERATURES,
        word_times="word" in (body.timestamp_granularities or ()),
        vad=_vad(body.chunking_strategy),
    )
    streamed = bool(body.stream)
    order = single.order(
        exchange,
        card,
        request,
        "openai",
        streamed=streamed,
        tier=body.service_tier,
        fail_fast=bool(body.fail_fast),
    )
    await single.answer(
        exchange, services, order, _Teller(body, task), "events" if streamed else "whole"
    )


def _check(body: TranscriptionIn) -> None:
    if body.timestamp_granularities and body.response_format != "verbose_json":
        raise BadRequest(
            "timestamp_granularities needs response_format verbose_json.",
            param="timestamp_granularities",
        )
    if body.stream and body.response_format not in (None, "json", "text"):
        raise BadRequest("A stream has the format json or text.", param="response_format")
    if body.include:
        raise UnsupportedField(
            "include is not supported: Whisper gives no logprobs.", param="include"
        )


def _vad(strategy: Literal["auto"] | ServerVad | None) -> SpeechFilter | None:
    if strategy is None:
        return None
    wish = ServerVad() if strategy == "auto" else strategy
    return SpeechFilter(wish.threshold, wish.silence_duration_ms, wish.prefix_padding_ms)


def seconds_bound(audio: Media, options: ApiOptions) -> float:
    """The longest that a recording of this size can be: what money is set aside for."""
    return min(options.audio_seconds_max, GRACE_SECONDS + audio.size_bytes / BYTES_PER_SECOND_MIN)


def plain_text(segments: list[Segment]) -> str:
    """The whole transcript."""
    return "".join(one.text for one in segments).strip()


def word_out(word: Word) -> WordOut:
    """Without the blank before it."""
    return WordOut(word.text.strip(), round(word.start, 3), round(word.end, 3))


class _Teller:
    """OpenAI's words, in all formats."""

    def __init__(self, body: TranscriptionIn, task: str) -> None:
        self._format: Format = body.response_format or "json"
        self._granularities = body.timestamp_granularities or ["segment"]
        self._task = task
        self._segments: list[Segment] = []
        self._streamed = bool(body.stream)

    def say(self, event: Event, work: Work) -> bytes:
        """A delta for each segment."""
        if not isinstance(event, Segment):
            return b""
        first = not self._segments
        self._segments.append(event)
        if not self._streamed:
            return b""
        delta = TranscriptDelta(event.text.lstrip() if first else event.text)
        return b"data: " + _encode(delta) + b"\n\n"

    def last(self, ending: Ending, work: Work) -> bytes:
        """The transcript in the format that was asked for."""
        assert isinstance(ending, Transcribed), "the task's ending"
        text = plain_text(self._segments)
        usage = AudioUsage(ending.duration_ms / 1000, usd(work.cost_nanos))
        if self._streamed:
            return b"data: " + _encode(TranscriptDone(text, usage)) + b"\n\ndata: [DONE]\n\n"
        if self._format == "verbose_json":
            return _encode(self._verbose(ending, text, usage))
        if self._format == "json":
            return _encode(TranscriptOut(text, usage))
        files = {"srt": srt, "vtt": vtt}
        told = files[self._format](self._segments) if self._format in files else text + "\n"
        return told.encode()

    def _verbose(self, ending: Transcribed, text: str, usage: AudioUsage) -> VerboseOut:
        segments = [
            SegmentOut(*(getattr(one, name) for name in SegmentOut.__struct_fields__))
            for one in self._segments
        ]
        words = [word_out(word) for one in self._segments for word in one.words]
        return VerboseOut(
            task=self._task,
            language=LANGUAGES.get(ending.language, ending.language),
            duration=ending.duration_ms / 1000,
            text=text,
            usage=usage,
            segments=segments if "segment" in self._granularities else None,
            words=words if "word" in self._granularities else None,
        )

    def failed(self, error: InferdError) -> bytes:
        """The event that ends a broken stream."""
        return stream_event(error)

    def headers(self) -> single.Headers:
        """Text for the text formats."""
        if self._format in ("json", "verbose_json"):
            return []
        return [(b"content-type", b"text/plain; charset=utf-8")]
