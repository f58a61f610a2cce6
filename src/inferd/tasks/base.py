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
]
"""DeepInfra's names for kinds of work."""


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


NOTHING = Usage()
