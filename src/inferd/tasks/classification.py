"""Tasks that label something: pictures, texts, words, answers in a text (deepinfra-api 3.9)."""

from __future__ import annotations

import msgspec

from inferd.tasks.base import Usage
from inferd.tasks.media import Media

LABELS_MAX = 1000
COMPUTE_SECONDS_MAX = 60.0
"""No more is billed for one picture: what money is set aside for."""


class ImageClassificationRequest(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="image-classification"
):
    """What is in this picture? `top` of the model's own labels, the likeliest first."""

    model: str
    image: Media
    top: int = 5


class ZeroShotImageRequest(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="zero-shot-image-classification"
):
    """Which of these labels fits this picture best."""

    model: str
    image: Media
    labels: tuple[str, ...]
    """1 to LABELS_MAX."""


class ObjectDetectionRequest(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="object-detection"
):
    """What is where in this picture."""

    model: str
    image: Media
    threshold: float = 0.5


class ReadDocumentRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="document-to-text"):
    """What is written in this picture."""

    model: str
    image: Media


class TextClassificationRequest(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="text-classification"
):
    """Which of the model's labels fits this text."""

    model: str
    text: str


class TokenClassificationRequest(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="token-classification"
):
    """Which words of this text are names, places, …."""

    model: str
    text: str


class FillMaskRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="fill-mask"):
    """Which words fit the one mask in this text."""

    model: str
    text: str
    top: int = 5


class QuestionAnsweringRequest(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="question-answering"
):
    """Which words of the context answer the question."""

    model: str
    question: str
    context: str


class Label(msgspec.Struct, frozen=True, array_like=True):
    """A label and its probability."""

    label: str
    score: float


class Labelled(msgspec.Struct, frozen=True, array_like=True, tag="labelled"):
    """The likeliest first; the last event."""

    labels: tuple[Label, ...]
    usage: Usage


class FoundObject(msgspec.Struct, frozen=True, array_like=True):
    """One object; the box in pixels of the picture as it came."""

    label: str
    score: float
    xmin: int
    ymin: int
    xmax: int
    ymax: int


class Detected(msgspec.Struct, frozen=True, array_like=True, tag="detected"):
    """The surest first; the last event."""

    objects: tuple[FoundObject, ...]
    usage: Usage


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line of writing and its four corners in pixels, clockwise from the upper left."""

    text: str
    score: float
    box: tuple[tuple[float, float], ...]


class ReadDocument(msgspec.Struct, frozen=True, array_like=True, tag="read_document"):
    """The lines from the top to the bottom; the last event."""

    lines: tuple[Line, ...]
    usage: Usage


class Entity(msgspec.Struct, frozen=True, array_like=True):
    """One name in a text; start and end in characters."""

    group: str
    score: float
    word: str
    start: int
    end: int


class Entities(msgspec.Struct, frozen=True, array_like=True, tag="entities"):
    """In the order of the text; the last event."""

    entities: tuple[Entity, ...]
    usage: Usage


class Filling(msgspec.Struct, frozen=True, array_like=True):
    """One word for the mask."""

    sequence: str
    """The whole text with it."""
    score: float
    token: int
    token_text: str


class Filled(msgspec.Struct, frozen=True, array_like=True, tag="filled"):
    """The likeliest first; the last event."""

    fillings: tuple[Filling, ...]
    usage: Usage


class Answered(msgspec.Struct, frozen=True, array_like=True, tag="answered"):
    """The answer as it stands in the context; the last event."""

    answer: str
    score: float
    start: int
    end: int
    usage: Usage


ImageTask = (
    ImageClassificationRequest | ZeroShotImageRequest | ObjectDetectionRequest | ReadDocumentRequest
)
TextTask = (
    TextClassificationRequest
    | TokenClassificationRequest
    | FillMaskRequest
    | QuestionAnsweringRequest
)
ClassificationEvent = Labelled | Detected | ReadDocument | Entities | Filled | Answered
