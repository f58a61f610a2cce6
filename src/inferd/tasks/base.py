"""What every task shares: usage, the words of an ending. Data only."""

from __future__ import annotations

from typing import Literal

import msgspec

TaskName = Literal[
    "text-generation",
    "embeddings",
    "reranker",
    "automatic-speech-recognition",
    "text-to-speech",
    "text-to-image",
    "text-to-video",
    "zero-shot-image-classification",
    "image-classification",
    "object-detection",
    "document-to-text",
    "fill-mask",
    "token-classification",
    "text-classification",
    "question-answering",
]
"""DeepInfra's names for kinds of work; `document-to-text` (reading a page's text) is ours."""

Unit = Literal[
    "input_seconds",
    "input_characters",
    "image_units",
    "output_seconds",
    "frame_units",
    "compute_seconds",
    "uptime_seconds",
]
"""What is billed besides tokens.

input_seconds     seconds of audio that were listened to
input_characters  characters that were spoken
image_units       images of 1,048,576 pixels at the model's default number of steps
output_seconds    seconds of video that were made
frame_units       frames of video of 1,048,576 pixels
compute_seconds   seconds that the engine computed
uptime_seconds    seconds that a replica was up; paid by an account, whoever calls
"""

MICRO = 1_000_000
"""`Usage.quantity` counts millionths of the task's unit."""

TASK_UNITS: dict[TaskName, Unit] = {
    "automatic-speech-recognition": "input_seconds",
    "text-to-speech": "input_characters",
    "text-to-image": "image_units",
    "text-to-video": "output_seconds",
    "zero-shot-image-classification": "compute_seconds",
    "image-classification": "compute_seconds",
    "object-detection": "compute_seconds",
    "document-to-text": "compute_seconds",
}
"""The unit of a task's quantity; a task that is not here is billed by its tokens alone."""

ANY_TASK_UNITS: tuple[Unit, ...] = ("compute_seconds", "uptime_seconds")
"""What any model may be priced in instead."""


def priced_units(task: TaskName) -> tuple[Unit, ...]:
    """What a model of this task may be priced in besides tokens."""
    films: tuple[Unit, ...] = ("frame_units",) if task == "text-to-video" else ()
    own = TASK_UNITS.get(task)
    first: tuple[Unit, ...] = () if own is None else (own,)
    return (*first, *films, *(unit for unit in ANY_TASK_UNITS if unit != own))


Tier = Literal["default", "priority", "flex"]
"""priority goes first and costs more, flex goes last and costs less (deepinfra-api 4.3)."""


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Units consumed so far, counted by the engine. Cumulative, never a delta."""

    input_tokens: int = 0
    """Prompt tokens processed so far, cached ones included."""

    cached_tokens: int = 0
    """Those of `input_tokens` that the prefix cache served. Part of them, never on top."""

    output_tokens: int = 0

    estimated: bool = False
    """The engine gave no token data; these are an estimate."""

    reasoning_tokens: int = 0
    """Those of `output_tokens` that the model thought with. Part of them, never on top."""

    quantity: int = 0
    """Millionths of the task's unit (TASK_UNITS). Beside the tokens, never the same thing twice."""


NOTHING = Usage()


class Counted(msgspec.Struct, frozen=True, array_like=True, tag="counted"):
    """The input was looked at and fits; nothing is computed or consumed yet.

    `most` is the most that the request can still consume: what money is set aside for.
    """

    most: Usage


class Progress(msgspec.Struct, frozen=True, array_like=True, tag="progress"):
    """Work went on; there is no new output."""

    usage: Usage
    step: int = 0
    steps: int = 0
    """How many steps there are; 0 where that is not known."""


CHUNK_BYTES_MAX = 256 * 1024


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag="chunk"):
    """Bytes of one output: audio as it is spoken, an encoded image or film in pieces."""

    index: int
    """Which output, from 0."""
    data: bytes
    """At most CHUNK_BYTES_MAX. Chunks of one index join to the whole."""
    usage: Usage


class Stopped(msgspec.Struct, frozen=True, array_like=True, tag="stopped"):
    """The request was cancelled; nothing is computed for it any more. The last event then."""

    usage: Usage
