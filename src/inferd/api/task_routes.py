"""The routes of every task but text generation."""

from __future__ import annotations

from inferd.api.openai.embeddings import EmbeddingsIn, EmbeddingsOut, embeddings
from inferd.api.openai.transcriptions import (
    TranscriptionIn,
    VerboseOut,
    transcriptions,
    translations,
)
from inferd.api.routes import Route, both

__all__ = ["task_routes"]


def task_routes() -> list[Route]:
    """What `table.ROUTES` takes over."""
    return [
        *both("POST", "/embeddings", embeddings, "Embed texts", EmbeddingsIn, EmbeddingsOut),
        *both(
            "POST",
            "/audio/transcriptions",
            transcriptions,
            "Write down what is said",
            TranscriptionIn,
            VerboseOut,
        ),
        *both(
            "POST",
            "/audio/translations",
            translations,
            "Write down what is said, in English",
            TranscriptionIn,
            VerboseOut,
        ),
    ]
