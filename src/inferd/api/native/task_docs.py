"""How each task is called: its schemas, an example that works, its answer in a sentence.

`GET /models/{name}` shows them (deepinfra-api 8.2). An example's values that begin with `@` are
files, which a form carries.
"""

from __future__ import annotations

import json
from shlex import quote
from typing import Any

import msgspec

from inferd.api.elevenlabs.speech import ElevenLabsSpeechIn
from inferd.api.native.embeddings import EmbeddingsIn, EmbeddingsOut
from inferd.api.native.image_tasks import (
    DetectionIn,
    DocumentOut,
    ImageIn,
    LabelsOut,
    ObjectsOut,
    ZeroShotIn,
)
from inferd.api.native.reranker import RerankIn, RerankOut
from inferd.api.native.speech_recognition import (
    SegmentEvent,
    SpeechRecognitionIn,
    SpeechRecognitionOut,
)
from inferd.api.native.text_generation import StreamEvent, TextGenerationIn, TextGenerationOut
from inferd.api.native.text_tasks import AnswerOut, EntitiesOut, FillMaskOut, QuestionIn, TextIn
from inferd.api.native.text_to_image import ProgressEvent, TextToImageIn, TextToImageOut
from inferd.api.native.text_to_speech import TextToSpeechIn, TextToSpeechOut
from inferd.api.native.text_to_video import TextToVideoIn, TextToVideoOut
from inferd.api.openai import embeddings as openai_embeddings
from inferd.api.openai.chat import ChatIn
from inferd.api.openai.chat_answer import ChatOut
from inferd.api.openai.completions import CompletionIn, CompletionOut
from inferd.api.openai.images import (
    ImageEditIn,
    ImageGenerationIn,
    ImagesOut,
    ImageVariationIn,
)
from inferd.api.openai.speech import SpeechIn
from inferd.api.openai.transcriptions import TranscriptionIn, VerboseOut
from inferd.catalog.card import ModelCard
from inferd.tasks.base import TaskName

Schemas = tuple[type, type | None, type | None]
"""What goes in, what comes out, an event of a stream; None: bytes, or no stream."""


class TaskDocs(msgspec.Struct, frozen=True):
    """One task."""

    native: Schemas
    body: dict[str, Any]
    answer: dict[str, Any]
    """Without the envelope, which is the same everywhere."""
    words: str
    """What the answer holds."""
    command: tuple[str, ...]
    """What follows the name after `inferd run`."""
    variants: dict[str, Schemas] = {}
    """Other ways to call it, by DeepInfra's keys."""


_LABELS = {"results": [{"label": "cat", "score": 0.93}, {"label": "dog", "score": 0.07}]}
_LABELS_WORDS = "`results` holds labels and their probabilities, the likeliest first."
_IMAGE = {"image": "@picture.png"}
_CLIPPED = "data:…"
_BOX = {"xmin": 12, "ymin": 30, "xmax": 210, "ymax": 180}

TASK_DOCS: dict[TaskName, TaskDocs] = {
    "text-generation": TaskDocs(
        (TextGenerationIn, TextGenerationOut, StreamEvent),
        {"input": "I have this dream"},
        {
            "results": [{"generated_text": " about a day"}],
            "num_tokens": 4,
            "num_input_tokens": 4,
        },
        "`results` holds the continuations, without the prompt.",
        ("I have this dream",),
        {
            "openai-chat-completions": (ChatIn, ChatOut, None),
            "openai-completions": (CompletionIn, CompletionOut, None),
        },
    ),
    "embeddings": TaskDocs(
        (EmbeddingsIn, EmbeddingsOut, None),
        {"inputs": ["I like chocolate"]},
        {"embeddings": [[0.021, -0.043, 0.002]], "input_tokens": 5},
        "`embeddings` holds one vector for each input, in their order.",
        ("I like chocolate",),
        {
            "openai-embeddings": (
                openai_embeddings.EmbeddingsIn,
                openai_embeddings.EmbeddingsOut,
                None,
            )
        },
    ),
    "reranker": TaskDocs(
        (RerankIn, RerankOut, None),
        {"queries": ["What is a panda?"], "documents": ["A bear of China.", "A small car."]},
        {"scores": [0.98, 0.11], "input_tokens": 24},
        "`scores` holds a number from 0 to 1 for each document, in their order.",
        ("What is a panda?", "A bear of China.", "A small car."),
    ),
    "automatic-speech-recognition": TaskDocs(
        (SpeechRecognitionIn, SpeechRecognitionOut, SegmentEvent),
        {"audio": "@speech.mp3"},
        {"text": " Good morning.", "segments": [], "language": "en", "input_length_ms": 1210},
        "`text` is what was said; `segments` says when.",
        ("@speech.mp3",),
        {"openai-speech-to-text": (TranscriptionIn, VerboseOut, None)},
    ),
    "text-to-speech": TaskDocs(
        (TextToSpeechIn, TextToSpeechOut, None),
        {"text": "Good morning."},
        {"audio": _CLIPPED, "input_character_length": 13, "output_format": "wav"},
        "`audio` is a data URL.",
        ("Good morning.", "-o", "speech.wav"),
        {
            "openai-tts": (SpeechIn, None, None),
            "elevenlabs-tts": (ElevenLabsSpeechIn, None, None),
        },
    ),
    "text-to-image": TaskDocs(
        (TextToImageIn, TextToImageOut, ProgressEvent),
        {"prompt": "a red apple"},
        {"images": [_CLIPPED], "nsfw_content_detected": [False], "seed": 7},
        "`images` holds data URLs.",
        ("a red apple", "-o", "apple.png"),
        {
            "openai-images": (ImageGenerationIn, ImagesOut, None),
            "openai-images-edits": (ImageEditIn, ImagesOut, None),
            "openai-images-variations": (ImageVariationIn, ImagesOut, None),
        },
    ),
    "text-to-video": TaskDocs(
        (TextToVideoIn, TextToVideoOut, ProgressEvent),
        {"prompt": "a red apple"},
        {"video": _CLIPPED, "video_url": _CLIPPED, "seed": 7},
        "`video` is a data URL; `video_url` is the same.",
        ("a red apple", "-o", "apple.mp4"),
    ),
    "image-classification": TaskDocs(
        (ImageIn, LabelsOut, None), _IMAGE, _LABELS, _LABELS_WORDS, ("@picture.png",)
    ),
    "zero-shot-image-classification": TaskDocs(
        (ZeroShotIn, LabelsOut, None),
        {**_IMAGE, "candidate_labels": ["cat", "dog"]},
        _LABELS,
        _LABELS_WORDS,
        ("@picture.png", "cat", "dog"),
    ),
    "object-detection": TaskDocs(
        (DetectionIn, ObjectsOut, None),
        _IMAGE,
        {"results": [{"label": "cat", "score": 0.98, "box": _BOX}]},
        "`results` holds things, the surest first, and their boxes in pixels.",
        ("@picture.png",),
    ),
    "document-to-text": TaskDocs(
        (ImageIn, DocumentOut, None),
        _IMAGE,
        {
            "text": "INVOICE",
            "results": [
                {"text": "INVOICE", "score": 0.99, "box": [[9, 9], [90, 9], [90, 30], [9, 30]]}
            ],
        },
        "`text` is all that is written, a line for each; `results` says where it stands.",
        ("@picture.png",),
    ),
    "fill-mask": TaskDocs(
        (TextIn, FillMaskOut, None),
        {"input": "The capital of France is [MASK]."},
        {
            "results": [
                {
                    "sequence": "the capital of france is paris.",
                    "score": 0.41,
                    "token": 3000,
                    "token_str": "paris",
                }
            ]
        },
        "`results` holds words for the mask, the likeliest first.",
        ("The capital of France is [MASK].",),
    ),
    "text-classification": TaskDocs(
        (TextIn, LabelsOut, None),
        {"input": "What a fine day."},
        {"results": [{"label": "POSITIVE", "score": 0.99}, {"label": "NEGATIVE", "score": 0.01}]},
        _LABELS_WORDS,
        ("What a fine day.",),
    ),
    "token-classification": TaskDocs(
        (TextIn, EntitiesOut, None),
        {"input": "Anna lives in Berlin."},
        {"results": [{"entity_group": "PER", "score": 0.99, "word": "Anna", "start": 0, "end": 4}]},
        "`results` holds names in the order of the text; start and end count characters.",
        ("Anna lives in Berlin.",),
    ),
    "question-answering": TaskDocs(
        (QuestionIn, AnswerOut, None),
        {"question": "Where does Anna live?", "context": "Anna lives in Berlin."},
        {"answer": "Berlin", "score": 0.97, "start": 14, "end": 20},
        "`answer` is the part of the context from `start` to `end`, in characters.",
        ("Where does Anna live?", "Anna lives in Berlin."),
    ),
}

_ENVELOPE = {
    "request_id": "RfMWDr1NXCd7cnaegcm3A8q0",
    "inference_status": {
        "status": "succeeded",
        "runtime_ms": 120,
        "cost": 0.0001,
        "tokens_generated": None,
        "tokens_input": None,
    },
}


def curl(card: ModelCard, base_url: str) -> str:
    """A call of the native endpoint from a shell."""
    body = TASK_DOCS[card.task].body
    head = f'curl "{base_url}/v1/inference/{card.name}" -H "Authorization: Bearer $INFERD_TOKEN"'
    if any(_is_file(value) for value in body.values()):
        return " ".join([head, *(f"-F {quote(_part(*one))}" for one in body.items())])
    return f'{head} -H "Content-Type: application/json" -d {quote(json.dumps(body))}'


def command(card: ModelCard) -> str:
    """The same with the command line."""
    return " ".join(["inferd run", card.name, *map(quote, TASK_DOCS[card.task].command)])


def answer(card: ModelCard) -> str:
    """What comes back, as JSON."""
    return json.dumps({**_ENVELOPE, **TASK_DOCS[card.task].answer}, ensure_ascii=False)


def variants(card: ModelCard) -> dict[str, Schemas]:
    """All ways to call a model, by key; the native one is the default."""
    docs = TASK_DOCS[card.task]
    return {"default": docs.native, **docs.variants}


def schema(struct: type | None) -> dict[str, Any] | None:
    """As JSON Schema; None stays None."""
    return None if struct is None else msgspec.json.schema(struct)


def fields(struct: type) -> list[dict[str, Any]]:
    """The fields of a body as flat rows, as forms show them."""
    whole = msgspec.json.schema(struct)
    named = whole["$defs"][whole["$ref"].rpartition("/")[2]]
    required = set(named.get("required", ()))
    return [
        _field(name, about, needed=name in required) for name, about in named["properties"].items()
    ]


_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def _field(name: str, about: dict[str, Any], *, needed: bool) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = about.get("anyOf", [about])
    first = next((one for one in kinds if one.get("type") != "null"), about)
    row: dict[str, Any] = {
        "name": name,
        "parent": None,
        "ftype": first.get("type", "object"),
        "description": about.get("description", ""),
        "allowed": first.get("enum"),
        "default": about.get("default"),
        "required": needed,
        "examples": [],
    }
    return {**row, **{bound: first.get(bound) for bound in _BOUNDS}}


def _is_file(value: object) -> bool:
    return isinstance(value, str) and value.startswith("@")


def _part(name: str, value: Any) -> str:
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"
