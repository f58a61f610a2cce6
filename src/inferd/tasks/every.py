"""All tasks together: what an engine may be asked, and what it may say."""

from __future__ import annotations

from inferd.tasks.base import Chunk, Counted, Progress, Stopped
from inferd.tasks.classification import (
    Answered,
    ClassificationEvent,
    Detected,
    Entities,
    Filled,
    ImageTask,
    Labelled,
    ReadDocument,
    TextTask,
)
from inferd.tasks.embeddings import Embedded, EmbeddingsRequest
from inferd.tasks.reranker import RerankRequest, Scored
from inferd.tasks.speech_recognition import (
    SpeechRecognitionEvent,
    Transcribed,
    TranscriptionRequest,
)
from inferd.tasks.text_generation import (
    DetokenizeRequest,
    Done,
    TextGenerationRequest,
    TokenizeRequest,
)
from inferd.tasks.text_generation import Event as TextEvent
from inferd.tasks.text_to_image import ImageRequest, Rendered, TextToImageEvent
from inferd.tasks.text_to_speech import SpeechRequest, Spoken
from inferd.tasks.text_to_video import Filmed, VideoRequest

Request = (
    TextGenerationRequest
    | TokenizeRequest
    | DetokenizeRequest
    | EmbeddingsRequest
    | RerankRequest
    | TranscriptionRequest
    | SpeechRequest
    | ImageRequest
    | VideoRequest
    | ImageTask
    | TextTask
)

Ending = Done | Embedded | Scored | Transcribed | Spoken | Rendered | Filmed | ClassificationEvent
"""A task's last event when it went well. Each has the final `usage`."""

ENDINGS = (
    Done,
    Embedded,
    Scored,
    Transcribed,
    Spoken,
    Rendered,
    Filmed,
    Labelled,
    Detected,
    ReadDocument,
    Entities,
    Filled,
    Answered,
)

Event = (
    TextEvent
    | Counted
    | Progress
    | Chunk
    | Stopped
    | Embedded
    | Scored
    | SpeechRecognitionEvent
    | Spoken
    | TextToImageEvent
    | Filmed
    | ClassificationEvent
)
