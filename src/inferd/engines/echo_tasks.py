"""Every task of the echo engine but text generation: exact units, answers made of the question.

A request is computed in steps (a text, a document, a segment, a word, a step of a picture), each
of them `token_ms` long; after each the client may have left, and its share of the units is used.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from functools import singledispatch
from typing import NamedTuple

from inferd.catalog.card import ModelCard
from inferd.engines.base import unsupported
from inferd.engines.echo_knobs import Knobs
from inferd.engines.echo_media import (
    FILM_SIDE,
    RATE,
    WORD_MS,
    film,
    picture,
    pieces,
    seconds_of,
    silence,
)
from inferd.errors import BadRequest, ContextLengthExceeded
from inferd.tasks.base import MICRO, Chunk, Counted, Progress, Stopped, Usage
from inferd.tasks.classification import (
    Answered,
    Detected,
    Entities,
    Entity,
    Filled,
    Filling,
    FillMaskRequest,
    FoundObject,
    ImageClassificationRequest,
    Label,
    Labelled,
    Line,
    ObjectDetectionRequest,
    QuestionAnsweringRequest,
    ReadDocument,
    ReadDocumentRequest,
    TextClassificationRequest,
    TokenClassificationRequest,
    ZeroShotImageRequest,
)
from inferd.tasks.embeddings import Embedded, EmbeddingsRequest
from inferd.tasks.every import Event, Request
from inferd.tasks.media import Media
from inferd.tasks.reranker import RerankRequest, Scored
from inferd.tasks.speech_recognition import Segment, Transcribed, TranscriptionRequest, Word
from inferd.tasks.text_to_image import (
    STEPS_MAX,
    ImageRequest,
    Rendered,
    image_quantity,
    preview_pieces,
    preview_steps,
)
from inferd.tasks.text_to_speech import SpeechRequest, Spoken, SpokenWord
from inferd.tasks.text_to_video import Filmed, VideoRequest

DIMENSIONS = 8
MASK = "[MASK]"


class Plan(NamedTuple):
    """What a request takes and brings."""

    steps: int
    most: Usage
    """All of it."""
    after: Callable[[int, Usage], Iterable[Event]]
    """Events after a step, counted from 0, with the usage so far."""
    ending: Callable[[], Event]


async def answer(
    request: Request, card: ModelCard, knobs: Knobs, cancelled: Callable[[], bool]
) -> AsyncGenerator[Event]:
    """Count, compute step by step, end."""
    plan = planned(request, card, knobs)
    yield Counted(plan.most)
    for step in range(plan.steps):
        knobs.misbehave(step)
        await knobs.pause("token_ms")
        so_far = _share(plan.most, step + 1, plan.steps)
        if cancelled():
            yield Stopped(so_far)
            return
        for event in plan.after(step, so_far):
            yield event
    knobs.misbehave(plan.steps)
    yield plan.ending()


@singledispatch
def planned(request: Request, card: ModelCard, knobs: Knobs) -> Plan:
    """The plan of a request. Raises BadRequest."""
    raise unsupported("echo", request)


@planned.register
def _(request: EmbeddingsRequest, card: ModelCard, knobs: Knobs) -> Plan:
    counts = [len(_words(one)) for one in request.inputs]
    _check_context(counts, card)
    usage = Usage(sum(counts))
    own = int(str(card.options.get("dimensions", DIMENSIONS)))
    dimensions = request.dimensions or own

    def ending() -> Event:
        vectors = b"".join(_vector(one, dimensions) for one in request.inputs)
        return Embedded(vectors, dimensions, usage)

    return Plan(len(request.inputs), usage, _nothing, ending)


@planned.register
def _(request: RerankRequest, card: ModelCard, knobs: Knobs) -> Plan:
    kept = request.document_tokens_max
    pairs = [(_words(query), _words(document)[:kept]) for query, document in request.pairs()]
    counts = [len(query) + len(document) for query, document in pairs]
    _check_context(counts, card)
    usage = Usage(sum(counts))
    scores = tuple(
        sum(word in document for word in query) / max(1, len(query)) for query, document in pairs
    )
    return Plan(len(pairs), usage, _nothing, lambda: Scored(scores, usage))


@planned.register
def _(request: TranscriptionRequest, card: ModelCard, knobs: Knobs) -> Plan:
    seconds = seconds_of(request.audio, "audio")
    if seconds > request.seconds_max:
        raise BadRequest(
            f"The recording is longer than {request.seconds_max:g} seconds.", param="audio"
        )
    usage = Usage(quantity=round(seconds * MICRO))
    length = request.chunk_seconds
    segments = max(1, -int(-seconds // length))

    def after(step: int, so_far: Usage) -> Iterator[Event]:
        start, end = step * length, min(seconds, (step + 1) * length)
        text = f" segment {step}"
        words = (
            Word(" segment", start, (start + end) / 2, 1.0),
            Word(f" {step}", (start + end) / 2, end, 1.0),
        )
        said = words if request.word_times else ()
        yield Segment(
            step, start * 100, start, end, text, (step,), 0.0, -0.1, 1.0, 0.0, so_far, said
        )

    language = request.language or "en"
    return Plan(segments, usage, after, lambda: Transcribed(language, round(seconds * 1000), usage))


@planned.register
def _(request: SpeechRequest, card: ModelCard, knobs: Knobs) -> Plan:
    words = request.text.split()
    usage = Usage(quantity=len(request.text) * MICRO)
    chunks = list(pieces(silence(request, len(words))))
    steps = max(1, len(words), len(chunks))

    def after(step: int, so_far: Usage) -> Iterator[Event]:
        for at in range(len(chunks) * step // steps, len(chunks) * (step + 1) // steps):
            yield Chunk(0, chunks[at], so_far)

    times = [
        SpokenWord(word, at * WORD_MS / 1000, (at + 1) * WORD_MS / 1000)
        for at, word in enumerate(words)
    ]
    spoken = Spoken(
        WORD_MS * len(words),
        request.sample_rate or RATE,
        tuple(times) if request.word_times else (),
        usage,
    )
    return Plan(steps, usage, after, lambda: spoken)


@planned.register
def _(request: ImageRequest, card: ModelCard, knobs: Knobs) -> Plan:
    default = int(str(card.options.get("steps", 20)))
    steps = min(request.steps or default, STEPS_MAX)
    usage = Usage(quantity=image_quantity(request, steps, default))
    seed, total = request.seed or 0, steps * request.n
    shown = preview_steps(0, steps, request.previews)

    def after(step: int, so_far: Usage) -> Iterator[Event]:
        index, done = step // steps, step % steps + 1
        yield Progress(so_far, step + 1, total)
        if done in shown:
            data = picture(request, seed + index, done / steps)
            yield from preview_pieces(index, shown.index(done), data, so_far)
        if done == steps:
            for data in pieces(picture(request, seed + index)):
                yield Chunk(index, data, so_far)

    mime = f"image/{request.image_format}"
    return Plan(total, usage, after, lambda: Rendered(request.n, mime, seed, steps, usage))


@planned.register
def _(request: VideoRequest, card: ModelCard, knobs: Knobs) -> Plan:
    seconds = request.seconds or float(str(card.options.get("seconds", 2)))
    usage, seed = Usage(quantity=round(seconds * MICRO)), request.seed or 0
    data, frames = film(request.prompt, seconds)
    chunks = list(pieces(data))

    def after(step: int, so_far: Usage) -> Iterator[Event]:
        yield Progress(so_far, step + 1, frames)
        if step + 1 == frames:
            for chunk in chunks:
                yield Chunk(0, chunk, so_far)

    ms = round(seconds * 1000)
    filmed = Filmed("video/mp4", seed, FILM_SIDE, FILM_SIDE, ms, frames, usage)
    return Plan(frames, usage, after, lambda: filmed)


@planned.register
def _(request: ImageClassificationRequest, card: ModelCard, knobs: Knobs) -> Plan:
    return _looked(knobs, lambda usage: Labelled((Label(request.image.mime, 1.0),), usage))


@planned.register
def _(request: ZeroShotImageRequest, card: ModelCard, knobs: Knobs) -> Plan:
    share = 1 / len(request.labels)
    labels = tuple(Label(label, share) for label in request.labels)
    return _looked(knobs, lambda usage: Labelled(labels, usage))


@planned.register
def _(request: ObjectDetectionRequest, card: ModelCard, knobs: Knobs) -> Plan:
    found = FoundObject(request.image.mime, 1.0, 0, 0, 1, 1)
    return _looked(knobs, lambda usage: Detected((found,), usage))


@planned.register
def _(request: ReadDocumentRequest, card: ModelCard, knobs: Knobs) -> Plan:
    corners = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    line = Line(_told(request.image), 1.0, corners)
    return _looked(knobs, lambda usage: ReadDocument((line,), usage))


@planned.register
def _(request: TextClassificationRequest, card: ModelCard, knobs: Knobs) -> Plan:
    words = _words(request.text)
    label = Label(words[0] if words else "", 1.0)
    return _read(words, card, lambda usage: Labelled((label,), usage))


@planned.register
def _(request: TokenClassificationRequest, card: ModelCard, knobs: Knobs) -> Plan:
    entities: list[Entity] = []
    at = 0
    for word in _words(request.text):
        at = request.text.index(word, at)
        if word[0].isupper():
            entities.append(Entity("MISC", 1.0, word, at, at + len(word)))
        at += len(word)
    return _read(_words(request.text), card, lambda usage: Entities(tuple(entities), usage))


@planned.register
def _(request: FillMaskRequest, card: ModelCard, knobs: Knobs) -> Plan:
    words = _words(request.text)
    if request.text.count(MASK) != 1:
        raise BadRequest(f"The text needs {MASK} once.", param="input")
    fillings = tuple(
        Filling(request.text.replace(MASK, word), 1 / (at + 1), at, word)
        for at, word in enumerate(words[: request.top])
    )
    return _read(words, card, lambda usage: Filled(fillings, usage))


@planned.register
def _(request: QuestionAnsweringRequest, card: ModelCard, knobs: Knobs) -> Plan:
    context = _words(request.context)
    answer = context[0] if context else ""
    start = request.context.find(answer)
    return _read(
        [*_words(request.question), *context],
        card,
        lambda usage: Answered(answer, 1.0, start, start + len(answer), usage),
    )


def _looked(knobs: Knobs, ending: Callable[[Usage], Event]) -> Plan:
    """A picture, billed by time: exactly `compute_ms`, whatever the clock says."""
    usage = Usage(quantity=max(1, round(knobs.number("compute_ms", 1) * 1000)))
    return Plan(1, usage, _nothing, lambda: ending(usage))


def _read(words: list[str], card: ModelCard, ending: Callable[[Usage], Event]) -> Plan:
    """A text, billed by its words."""
    _check_context([len(words)], card)
    usage = Usage(len(words))
    return Plan(len(words), usage, _nothing, lambda: ending(usage))


def _nothing(step: int, usage: Usage) -> Iterable[Event]:
    return ()


def _share(most: Usage, done: int, steps: int) -> Usage:
    return Usage(most.input_tokens * done // steps, quantity=most.quantity * done // steps)


def _words(text: str | tuple[int, ...]) -> list[str]:
    return text.split() if isinstance(text, str) else [str(id_) for id_ in text]


def _check_context(counts: Iterable[int], card: ModelCard) -> None:
    longest = max(counts, default=0)
    if card.context_length and longest > card.context_length:
        raise ContextLengthExceeded(
            f"A text has {longest} tokens; the model takes {card.context_length}.", param="input"
        )


def _vector(text: str | tuple[int, ...], dimensions: int) -> bytes:
    """Of length 1, the same for the same text."""
    number = zlib.crc32(" ".join(_words(text)).encode("utf-8", "replace"))
    values = [1.0 + (number >> at % 24 & 255) for at in range(dimensions)]
    length = sum(value * value for value in values) ** 0.5
    return struct.pack(f"<{dimensions}f", *(value / length for value in values))


def _told(media: Media) -> str:
    return f"{media.size_bytes} bytes of {media.mime}"
