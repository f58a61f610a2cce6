"""A chat that is told what its pictures show: a classifier's words in a language model's prompt.

Two stages, and no more than that: the classes which a network of ImageNet finds likeliest are
written into the message where the picture stands, and llama.cpp answers the text. Positions,
colours, counts, people and writing are beyond it.

Files: `model` (GGUF), `classifier` (ONNX) and `classes`, those two as onnx_classifier.py takes
them. Options: those of picture_input.py; `media_tokens_max`, the most bytes of one description
(a token is at least a byte); `picture_labels`, how many classes are named.
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
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import NOTHING, Stopped
from inferd.tasks.every import Event
from inferd.tasks.media import Media
from inferd.tasks.text_generation import (
    ChatPrompt,
    Message,
    TextGenerationRequest,
    TokenizeRequest,
    media_count,
)

if TYPE_CHECKING:
    from inferd.engines.classifier_model import ClassifierModel

LABELS = 2
CLASSIFIER_BYTES = 300 << 20
"""Decoded pictures and the classifier's activations."""


class SmolcaptionEngine:
    """A classifier and a language model."""

    def __init__(self) -> None:
        self._chat = XllamacppEngine()
        self._describe: _Describer | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Load both."""
        self._describe = _Describer(card, resources)
        files = {"model": resources.files["model"]}
        return self._chat.load(card, msgspec.structs.replace(resources, files=files))

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Look at the pictures, then chat. All that is counted is text that the model reads."""
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
        """The prompt with words for its pictures; None when it was cancelled."""
        if self._describe is None:
            raise EngineFailed("The model is not loaded.")
        messages: list[Message] = []
        for message in prompt.messages:
            texts: list[str] = []
            for placed in message.media:
                texts.append(await asyncio.to_thread(self._describe.words, placed.media))
                if cancel.is_set():
                    return None
            content = with_texts(message, texts)
            messages.append(msgspec.structs.replace(message, content=content, media=()))
        return msgspec.structs.replace(prompt, messages=tuple(messages))

    async def close(self) -> None:
        """Stop everything that runs."""
        await self._chat.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """Both, and a picture."""
        return XllamacppEngine.memory_bytes(card, files) + CLASSIFIER_BYTES


class _Describer:
    """Says what a picture shows. Thread-safe."""

    def __init__(self, card: ModelCard, resources: Resources) -> None:
        # In the worker alone: it brings numpy, Pillow and ONNX Runtime.
        from inferd.engines.classifier_model import ClassifierModel

        paths = resources.path("classifier"), resources.path("classes")
        self._model: ClassifierModel = ClassifierModel(card, *paths, resources.threads)
        self._labels = int(str(card.options.get("picture_labels", LABELS)))
        self._bytes_max = card.media_tokens_max()

    def words(self, media: Media) -> str:
        """A line for the prompt. Blocks; raises BadRequest for what is no sound picture."""
        if media.kind != "image":
            raise BadRequest(f"This model takes images, not {media.kind}.", param="messages")
        pixels = self._model.input.prepared(media)
        found = self._model.likeliest(self._model.probabilities([pixels])[0], self._labels)
        # A class has several names, the plainest first.
        names = dict.fromkeys(label.label.partition(",")[0] for label in found)
        text = f"(Attached picture: a photo of {', '.join(names)}.)\n"
        return text.encode()[: self._bytes_max].decode("utf-8", "ignore")
