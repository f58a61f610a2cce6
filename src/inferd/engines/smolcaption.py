"""A chat that is told what its attachments hold: small networks' words in a model's prompt.

Two stages, and no more than that. Where a picture was stands the text that OCR reads in it and,
where that is little, the classes which a network of ImageNet finds likeliest; where a recording
was, what Whisper hears; of a film both, from a few pictures of it. llama.cpp answers the text.
Positions, colours, counts, people, movement and music are beyond it.

Files: `model` (GGUF), `classifier` (ONNX) and `classes`, those two as onnx_classifier.py takes
them; `detector`, `turner` and `reader` as ocr.py takes them, or none of these three; Whisper's as
faster_whisper.py takes them, each with `ear/` before its role, or none of them. Options: those of
picture_input.py; `media_tokens_max`, the most bytes of one description (a token is at least a
byte); `picture_labels`, how many classes are named; `video_frames`, how many pictures of a film
are looked at; `media_seconds_max`, the longest recording or film.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources
from inferd.engines.llama_media import with_texts
from inferd.engines.xllamacpp import XllamacppEngine
from inferd.errors import EngineFailed
from inferd.tasks.base import NOTHING, Stopped
from inferd.tasks.every import Event
from inferd.tasks.text_generation import (
    ChatPrompt,
    Message,
    TextGenerationRequest,
    TokenizeRequest,
    media_count,
)

if TYPE_CHECKING:
    from inferd.engines.smolcaption_words import Describer

NETWORKS_BYTES = 1 << 30
"""Decoded pictures, films and recordings, and what the networks need while they compute."""


class SmolcaptionEngine:
    """Networks that look, read and listen, and a language model."""

    def __init__(self) -> None:
        self._chat = XllamacppEngine()
        self._describe: Describer | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Load all."""
        # In the worker alone: it brings numpy, Pillow, ONNX Runtime and faster-whisper.
        from inferd.engines.smolcaption_words import Describer

        self._describe = Describer(card, resources)
        files = {"model": resources.files["model"]}
        return self._chat.load(card, msgspec.structs.replace(resources, files=files))

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Look and listen, then chat. All that is counted is text that the model reads."""
        shows = isinstance(request, TextGenerationRequest | TokenizeRequest)
        if shows and isinstance(request.prompt, ChatPrompt) and media_count(request.prompt):
            told = await self._told(request.prompt, cancel)
            if told is None:
                yield Stopped(NOTHING)
                return
            request = msgspec.structs.replace(request, prompt=told)
        async with aclosing(self._chat.run(request, cancel)) as events:
            async for event in events:
                yield event

    async def _told(self, prompt: ChatPrompt, cancel: asyncio.Event) -> ChatPrompt | None:
        """The prompt with words for its attachments; None when it was cancelled."""
        if self._describe is None:
            raise EngineFailed("The model is not loaded.")
        messages: list[Message] = []
        for message in prompt.messages:
            texts: list[str] = []
            for placed in message.media:
                words = self._describe.words
                text = await asyncio.to_thread(words, placed.media, cancel.is_set)
                if text is None or cancel.is_set():
                    return None
                texts.append(text)
            content = with_texts(message, texts)
            messages.append(msgspec.structs.replace(message, content=content, media=()))
        return msgspec.structs.replace(prompt, messages=tuple(messages))

    async def close(self) -> None:
        """Stop everything that runs."""
        await self._chat.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """All of them, and what they look at. Weights may be there twice while they are opened."""
        others = sum(file.size_bytes for file in card.files if file.role != "model")
        return XllamacppEngine.memory_bytes(card, files) + 2 * others + NETWORKS_BYTES
