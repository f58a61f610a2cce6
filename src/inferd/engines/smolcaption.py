"""A chat that is told what its pictures show: two networks' words in a language model's prompt.

Two stages, and no more than that: what stands where the picture was is the text that OCR reads in
it and, where that is little, the classes which a network of ImageNet finds likeliest; llama.cpp
answers the text. Positions, colours, counts and people are beyond it.

Files: `model` (GGUF), `classifier` (ONNX) and `classes`, those two as onnx_classifier.py takes
them; `detector`, `turner` and `reader` as ocr.py takes them, or none of these three. Options:
those of picture_input.py; `media_tokens_max`, the most bytes of one description (a token is at
least a byte); `picture_labels`, how many classes are named.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
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
    from PIL.Image import Image

    from inferd.engines.classifier_model import ClassifierModel
    from inferd.engines.ocr_model import OcrModel

LABELS = 2
WRITING_MIN, WRITING_MUCH = 4, 40
"""Letters and digits: fewer are no writing, so many make the picture a page, whose classes
(an envelope, a web site) would mislead."""
FRAME_BYTES = 32
"""Of what is said around the writing."""
NETWORKS_BYTES = 1 << 30
"""Decoded pictures and the activations of the classifier and of OCR."""


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
        """Both, and a picture."""
        return XllamacppEngine.memory_bytes(card, files) + NETWORKS_BYTES


class _Describer:
    """Says what a picture shows. Thread-safe."""

    def __init__(self, card: ModelCard, resources: Resources) -> None:
        # In the worker alone: they bring numpy, Pillow and ONNX Runtime.
        from inferd.engines.classifier_model import ClassifierModel
        from inferd.engines.ocr_model import DETECTOR, OcrModel

        paths = resources.path("classifier"), resources.path("classes")
        self._model: ClassifierModel = ClassifierModel(card, *paths, resources.threads)
        self._ocr: OcrModel | None = OcrModel(resources) if DETECTOR in resources.files else None
        self._labels = int(str(card.options.get("picture_labels", LABELS)))
        self._bytes_max = card.media_tokens_max()

    def words(self, media: Media, stopped: Callable[[], bool]) -> str | None:
        """Lines for the prompt; None once `stopped`. Blocks; BadRequest for no sound picture."""
        from inferd.engines.decode_image import decode_image

        if media.kind != "image":
            raise BadRequest(f"This model takes images, not {media.kind}.", param="messages")
        picture = decode_image(media)
        writing = self._writing(picture, stopped)
        if writing is None:
            return None
        letters = sum(one.isalnum() for one in writing)
        text = self._classes(picture) if letters < WRITING_MUCH else ""
        if letters >= WRITING_MIN:
            text += f"The attached picture says:\n\n{self._cut(writing, len(text))}\n\n"
        return text

    def _classes(self, picture: Image) -> str:
        pixels = self._model.input.pixels(picture)
        found = self._model.likeliest(self._model.probabilities([pixels])[0], self._labels)
        # A class has several names, the plainest first.
        names = dict.fromkeys(label.label.partition(",")[0] for label in found)
        return f"(Attached picture: a photo of {', '.join(names)}.)\n"

    def _writing(self, picture: Image, stopped: Callable[[], bool]) -> str | None:
        """Its rows; None once stopped."""
        if self._ocr is None:
            return ""
        page = self._ocr.pages(picture, stopped)
        if page is None:
            return None
        return "\n".join(" ".join(line.text for line in row) for row in page)

    def _cut(self, text: str, used: int) -> str:
        """No more than the picture may cost, with what is said around it."""
        room = max(0, self._bytes_max - used - FRAME_BYTES)
        return text.encode()[:room].decode("utf-8", "ignore")
