"""Native tasks that look at a picture (deepinfra-api 3.9): one JSON object with `results`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import single
from inferd.api.deferred import take_webhook
from inferd.api.exchange import Exchange
from inferd.api.media import read_with_media
from inferd.api.native.envelope import InferenceStatus, NativeTeller, succeeded
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.tasks.classification import (
    LABELS_MAX,
    Detected,
    ImageClassificationRequest,
    ImageTask,
    Labelled,
    ObjectDetectionRequest,
    ReadDocument,
    ReadDocumentRequest,
    ZeroShotImageRequest,
)
from inferd.tasks.every import Ending
from inferd.tasks.media import Media

LABEL_CHARACTERS_MAX = 512

CandidateLabel = Annotated[str, Meta(min_length=1, max_length=LABEL_CHARACTERS_MAX)]


class ImageIn(msgspec.Struct, frozen=True, kw_only=True):
    """A picture: a file of a form, a data URL, base64 or an http(s) URL."""

    image: str
    service_tier: str | None = None
    webhook: str | None = None


class ZeroShotIn(ImageIn, frozen=True, kw_only=True):
    """A picture, and the labels to choose from; in a form, a JSON list as text."""

    candidate_labels: Annotated[list[CandidateLabel], Meta(min_length=1, max_length=LABELS_MAX)]


class DetectionIn(ImageIn, frozen=True, kw_only=True):
    """A picture, and how sure the model must be of an object."""

    threshold: Annotated[float, Meta(ge=0, le=1)] | None = 0.5


class LabelOut(msgspec.Struct, frozen=True):
    """A label and its probability."""

    label: str
    score: float


class LabelsOut(msgspec.Struct, frozen=True):
    """The likeliest first."""

    request_id: str
    inference_status: InferenceStatus
    results: list[LabelOut]


class Box(msgspec.Struct, frozen=True):
    """In pixels of the picture."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


class ObjectOut(msgspec.Struct, frozen=True):
    """One object."""

    label: str
    score: float
    box: Box


class ObjectsOut(msgspec.Struct, frozen=True):
    """The surest first."""

    request_id: str
    inference_status: InferenceStatus
    results: list[ObjectOut]


class LineOut(msgspec.Struct, frozen=True):
    """One line of writing and its corners in pixels, clockwise from the upper left."""

    text: str
    score: float
    box: list[tuple[float, float]]


class DocumentOut(msgspec.Struct, frozen=True):
    """All lines, from the top to the bottom; `text` has one line of each."""

    request_id: str
    inference_status: InferenceStatus
    text: str
    results: list[LineOut]


In = TypeVar("In", bound=ImageIn)

_IMAGE = msgspec.json.Decoder(ImageIn)
_ZERO_SHOT = msgspec.json.Decoder(ZeroShotIn)
_DETECTION = msgspec.json.Decoder(DetectionIn)
_encode = msgspec.json.Encoder().encode


async def image_classification(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Name what is in a picture."""
    body, image = await _read(exchange, services, _IMAGE, ImageIn)
    request = ImageClassificationRequest(card.name, image)
    await _answer(exchange, services, card, body, request)


async def zero_shot_image(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Choose among the caller's labels."""
    body, image = await _read(exchange, services, _ZERO_SHOT, ZeroShotIn)
    request = ZeroShotImageRequest(card.name, image, tuple(body.candidate_labels))
    await _answer(exchange, services, card, body, request)


async def object_detection(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Find things and where they are."""
    body, image = await _read(exchange, services, _DETECTION, DetectionIn)
    threshold = 0.5 if body.threshold is None else body.threshold
    request = ObjectDetectionRequest(card.name, image, threshold)
    await _answer(exchange, services, card, body, request)


async def document_to_text(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Read what is written."""
    body, image = await _read(exchange, services, _IMAGE, ImageIn)
    await _answer(exchange, services, card, body, ReadDocumentRequest(card.name, image))


async def _read(
    exchange: Exchange, services: Services, decoder: msgspec.json.Decoder[In], struct: type[In]
) -> tuple[In, Media]:
    body, door = await read_with_media(exchange, services, decoder, struct)
    take_webhook(exchange, body.webhook)
    return body, await door.take(body.image, "image", "image")


async def _answer(
    exchange: Exchange, services: Services, card: ModelCard, body: ImageIn, request: ImageTask
) -> None:
    order = single.order(exchange, card, request, "native", tier=body.service_tier)
    await single.answer(exchange, services, order, _Teller())


class _Teller(NativeTeller):
    def last(self, ending: Ending, work: Work) -> bytes:
        return _encode(_BODIES[type(ending)](ending, work))


def labels_body(ending: Any, work: Work) -> LabelsOut:
    """The body of a Labelled ending."""
    results = [LabelOut(one.label, one.score) for one in ending.labels]
    return LabelsOut(work.order.request_id, succeeded(work, ending.usage), results)


def _objects_body(ending: Any, work: Work) -> ObjectsOut:
    found: Detected = ending
    results = [
        ObjectOut(one.label, one.score, Box(one.xmin, one.ymin, one.xmax, one.ymax))
        for one in found.objects
    ]
    return ObjectsOut(work.order.request_id, succeeded(work, found.usage), results)


def _document_body(ending: Any, work: Work) -> DocumentOut:
    read: ReadDocument = ending
    lines = [LineOut(one.text, one.score, list(one.box)) for one in read.lines]
    status = succeeded(work, read.usage)
    text = "\n".join(one.text for one in read.lines)
    return DocumentOut(work.order.request_id, status, text, lines)


_BODIES: dict[type, Callable[[Any, Work], msgspec.Struct]] = {
    Labelled: labels_body,
    Detected: _objects_body,
    ReadDocument: _document_body,
}
