"""POST /v1/inference/{owner/name} (deepinfra-api 3.1, 3.2): one native endpoint per model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from inferd.api.exchange import Exchange
from inferd.api.native.embeddings import embeddings
from inferd.api.native.image_tasks import (
    document_to_text,
    image_classification,
    object_detection,
    zero_shot_image,
)
from inferd.api.native.reranker import reranker
from inferd.api.native.speech_recognition import speech_recognition
from inferd.api.native.text_generation import text_generation
from inferd.api.native.text_tasks import (
    fill_mask,
    question_answering,
    text_classification,
    token_classification,
)
from inferd.api.native.text_to_image import text_to_image
from inferd.api.native.text_to_speech import text_to_speech
from inferd.api.native.text_to_video import text_to_video
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest
from inferd.tasks.base import TaskName

Endpoint = Callable[[Exchange, Services, ModelCard], Awaitable[None]]

TASKS: dict[TaskName, Endpoint] = {
    "text-generation": text_generation,
    "embeddings": embeddings,
    "reranker": reranker,
    "text-to-speech": text_to_speech,
    "text-to-image": text_to_image,
    "text-to-video": text_to_video,
    "automatic-speech-recognition": speech_recognition,
    "zero-shot-image-classification": zero_shot_image,
    "image-classification": image_classification,
    "object-detection": object_detection,
    "document-to-text": document_to_text,
    "fill-mask": fill_mask,
    "token-classification": token_classification,
    "text-classification": text_classification,
    "question-answering": question_answering,
}
"""Which endpoint answers which task."""


async def inference(exchange: Exchange, services: Services) -> None:
    """Hand the call to its model's task."""
    query = parse_qs(exchange.query.decode("latin-1"))
    card = services.catalog.serving(exchange.rest, query.get("version", [""])[0])
    exchange.keeps_body = exchange.detached is None
    endpoint = TASKS.get(card.task)
    if endpoint is None:
        raise BadRequest(f"The task {card.task} is not supported yet.")
    await endpoint(exchange, services, card)
