"""Native tasks that look at a text (deepinfra-api 3.9): labels, names, masks, answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import inference, single
from inferd.api.deferred import take_webhook
from inferd.api.exchange import Exchange
from inferd.api.native.envelope import InferenceStatus, NativeTeller, succeeded
from inferd.api.native.image_tasks import labels_body
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.tasks.classification import (
    Answered,
    Entities,
    Filled,
    FillMaskRequest,
    Labelled,
    QuestionAnsweringRequest,
    TextClassificationRequest,
    TextTask,
    TokenClassificationRequest,
)
from inferd.tasks.every import Ending

TEXT_CHARACTERS_MAX = 200_000

InputText = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARACTERS_MAX)]


class TaskIn(msgspec.Struct, frozen=True, kw_only=True):
    """What every body may say."""

    service_tier: str | None = None
    webhook: str | None = None


class TextIn(TaskIn, frozen=True, kw_only=True):
    """A text."""

    input: InputText


class QuestionIn(TaskIn, frozen=True, kw_only=True):
    """A question, and the text that answers it."""

    question: InputText
    context: InputText


class FillingOut(msgspec.Struct, frozen=True):
    """One word for the mask, and the whole text with it."""

    sequence: str
    score: float
    token: int
    token_str: str


class FillMaskOut(msgspec.Struct, frozen=True):
    """The likeliest first."""

    request_id: str
    inference_status: InferenceStatus
    results: list[FillingOut]


class EntityOut(msgspec.Struct, frozen=True):
    """One name; start and end in characters of the input."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


class EntitiesOut(msgspec.Struct, frozen=True):
    """In the order of the text."""

    request_id: str
    inference_status: InferenceStatus
    results: list[EntityOut]


class AnswerOut(msgspec.Struct, frozen=True):
    """The answer as it stands in the context; start and end in its characters."""

    request_id: str
    inference_status: InferenceStatus
    answer: str
    score: float
    start: int
    end: int


In = TypeVar("In", bound=TaskIn)

_TEXT = msgspec.json.Decoder(TextIn)
_QUESTION = msgspec.json.Decoder(QuestionIn)
_encode = msgspec.json.Encoder().encode


async def fill_mask(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Find words for `[MASK]`."""
    body = await _read(exchange, services, _TEXT, TextIn)
    await _answer(exchange, services, card, body, FillMaskRequest(card.name, body.input))


async def text_classification(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Label a text."""
    body = await _read(exchange, services, _TEXT, TextIn)
    await _answer(exchange, services, card, body, TextClassificationRequest(card.name, body.input))


async def token_classification(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Find names."""
    body = await _read(exchange, services, _TEXT, TextIn)
    await _answer(exchange, services, card, body, TokenClassificationRequest(card.name, body.input))


async def question_answering(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Find the answer in a text."""
    body = await _read(exchange, services, _QUESTION, QuestionIn)
    request = QuestionAnsweringRequest(card.name, body.question, body.context)
    await _answer(exchange, services, card, body, request)


async def _read(
    exchange: Exchange, services: Services, decoder: msgspec.json.Decoder[In], struct: type[In]
) -> In:
    body = await inference.read_form_or_json(exchange, services, decoder, struct)
    take_webhook(exchange, body.webhook)
    return body


async def _answer(
    exchange: Exchange, services: Services, card: ModelCard, body: TaskIn, request: TextTask
) -> None:
    order = single.order(exchange, card, request, "native", tier=body.service_tier)
    await single.answer(exchange, services, order, _Teller())


class _Teller(NativeTeller):
    def last(self, ending: Ending, work: Work) -> bytes:
        return _encode(_BODIES[type(ending)](ending, work))


def _fillings_body(ending: Any, work: Work) -> FillMaskOut:
    filled: Filled = ending
    results = [
        FillingOut(one.sequence, one.score, one.token, one.token_text) for one in filled.fillings
    ]
    return FillMaskOut(work.order.request_id, succeeded(work, filled.usage), results)


def _entities_body(ending: Any, work: Work) -> EntitiesOut:
    found: Entities = ending
    results = [
        EntityOut(one.group, one.score, one.word, one.start, one.end) for one in found.entities
    ]
    return EntitiesOut(work.order.request_id, succeeded(work, found.usage), results)


def _answer_body(ending: Any, work: Work) -> AnswerOut:
    told: Answered = ending
    status = succeeded(work, told.usage)
    return AnswerOut(work.order.request_id, status, told.answer, told.score, told.start, told.end)


_BODIES: dict[type, Callable[[Any, Work], msgspec.Struct]] = {
    Labelled: labels_body,
    Filled: _fillings_body,
    Entities: _entities_body,
    Answered: _answer_body,
}
