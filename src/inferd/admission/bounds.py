"""The most that a request can consume, from its size alone: no tokenizer, nothing decoded."""

from __future__ import annotations

from functools import singledispatch

from inferd.catalog.card import ModelCard
from inferd.tasks.base import MICRO, NOTHING, Usage
from inferd.tasks.classification import (
    COMPUTE_SECONDS_MAX,
    FillMaskRequest,
    QuestionAnsweringRequest,
    TextClassificationRequest,
    TokenClassificationRequest,
)
from inferd.tasks.embeddings import EmbeddingsRequest
from inferd.tasks.every import Request
from inferd.tasks.reranker import RerankRequest
from inferd.tasks.speech_recognition import TranscriptionRequest
from inferd.tasks.text_generation import (
    DetokenizeRequest,
    TextGenerationRequest,
    TokenizeRequest,
)
from inferd.tasks.text_to_image import STEPS_MAX, ImageRequest, image_quantity
from inferd.tasks.text_to_speech import SpeechRequest
from inferd.tasks.text_to_video import SECONDS_MAX, VideoRequest

TOKENS_PER_MESSAGE = 16
"""Most that a chat template adds around one message; ChatML adds 5, Llama 3 adds 5 to 7."""
TOKENS_PER_TEXT = 8
"""Most that an encoder adds around one text: BERT adds 2, RoBERTa 4 around a pair."""
TOKENS_PER_PICTURE = 512
"""For fairness: about what common vision models make of a picture."""
WORK_PER_SECOND = 100
"""Tokens of a small model that weigh as much as one second of audio or computing."""


@singledispatch
def most(request: Request, card: ModelCard) -> Usage:
    """The most that the request can consume: a token is at least a byte."""
    return Usage(quantity=round(COMPUTE_SECONDS_MAX * MICRO))


@most.register
def _(request: TextGenerationRequest, card: ModelCard) -> Usage:
    context = card.context_length
    text = request.prompt_bytes() + card.template_allowance_tokens
    if card.modalities:
        text += sum(card.media_tokens_max(media.kind) for media in request.media())
    return Usage(
        min(context, text + TOKENS_PER_MESSAGE * request.message_count()),
        output_tokens=request.n * min(request.max_tokens or context, context),
    )


@most.register(TokenizeRequest | DetokenizeRequest)
def _(request: Request, card: ModelCard) -> Usage:
    return NOTHING


@most.register
def _(request: EmbeddingsRequest, card: ModelCard) -> Usage:
    instruction = len((request.instruction or "").encode("utf-8", "replace"))
    allowance = TOKENS_PER_TEXT + card.template_allowance_tokens + instruction
    return Usage(request.input_bytes() + len(request.inputs) * allowance)


@most.register
def _(request: RerankRequest, card: ModelCard) -> Usage:
    instruction = len((request.instruction or "").encode("utf-8", "replace"))
    allowance = TOKENS_PER_TEXT + card.template_allowance_tokens + instruction
    # An engine that judges by generating reads each pair as often as its card says.
    passes = int(str(card.options.get("passes", 1)))
    return Usage(
        passes * (request.tokens_max() + len(request.documents) * allowance),
        output_tokens=len(request.documents),
    )


@most.register
def _(request: TranscriptionRequest, card: ModelCard) -> Usage:
    return Usage(quantity=round(request.seconds_max * MICRO))


@most.register
def _(request: SpeechRequest, card: ModelCard) -> Usage:
    return Usage(quantity=len(request.text) * MICRO)


@most.register
def _(request: ImageRequest, card: ModelCard) -> Usage:
    default = int(str(card.options.get("steps", 20)))
    steps = default if request.steps is None else min(request.steps, STEPS_MAX)
    return Usage(quantity=image_quantity(request, steps, default))


@most.register
def _(request: VideoRequest, card: ModelCard) -> Usage:
    default = float(str(card.options.get("seconds", SECONDS_MAX)))
    seconds = default if request.seconds is None else request.seconds
    return Usage(quantity=round(seconds * MICRO))


@most.register(TextClassificationRequest | TokenClassificationRequest | FillMaskRequest)
def _(
    request: TextClassificationRequest | TokenClassificationRequest | FillMaskRequest,
    card: ModelCard,
) -> Usage:
    return Usage(len(request.text.encode("utf-8", "replace")) + TOKENS_PER_TEXT)


@most.register
def _(request: QuestionAnsweringRequest, card: ModelCard) -> Usage:
    text = request.question + request.context
    # The context is read in windows that overlap by half.
    return Usage(2 * len(text.encode("utf-8", "replace")) + TOKENS_PER_TEXT)


def most_tokens(usage: Usage, request: Request, card: ModelCard) -> int:
    """The most tokens of a request whose `most` is known: a choice and its prompt fit the context.

    Tokens of what is not priced by tokens are 0.
    """
    tokens = usage.input_tokens + usage.output_tokens
    if isinstance(request, TextGenerationRequest):
        return min(tokens, request.n * card.context_length)
    return tokens


def work_of(request: Request) -> int:
    """Estimated tokens of work, for fairness between accounts."""
    if isinstance(request, TextGenerationRequest):
        media = TOKENS_PER_PICTURE * request.media_count()
        return request.prompt_bytes() // 4 + (request.max_tokens or 256) + media
    if isinstance(request, EmbeddingsRequest | RerankRequest):
        return 1 + request.input_bytes() // 16
    if isinstance(request, TranscriptionRequest):
        return 1 + round(request.seconds_max) * WORK_PER_SECOND // 10
    if isinstance(request, SpeechRequest):
        return 1 + len(request.text)
    if isinstance(request, ImageRequest):
        return request.n * WORK_PER_SECOND
    if isinstance(request, VideoRequest):
        return SECONDS_MAX * WORK_PER_SECOND
    return 1
