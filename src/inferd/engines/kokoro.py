"""Text to speech with Kokoro on ONNX Runtime.

Options of a card: `voices`, the names in the order in which the file holds them,
`default_voice`, and `device` as in onnx.py. Files: `model` (ONNX), `vocabulary` (JSON), `voices`
(float32, 510 × 256 each).

The text is spoken piece by piece, a sentence each, and every piece is sent as soon as it is
there; a request that is cancelled stops at the next piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.kokoro_text import check_language
from inferd.engines.turns import in_turn
from inferd.errors import EngineFailed
from inferd.tasks.every import Event
from inferd.tasks.text_to_speech import SpeechRequest

if TYPE_CHECKING:
    from inferd.engines.kokoro_model import KokoroModel


THREADS_OF_PIECE = 2
"""One piece keeps so many busy."""


class _Loaded(NamedTuple):
    card: ModelCard
    model: KokoroModel
    threads: ThreadPoolExecutor


class KokoroEngine:
    """One Kokoro with all its voices."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Open the model and say a word, so that the first caller does not wait for it."""
        from inferd.engines.kokoro_model import KokoroModel, VoiceFiles
        from inferd.engines.onnx import device_of

        names = card.options.get("voices")
        if not isinstance(names, list) or not names:
            raise EngineFailed("The card names no voices.")
        files = VoiceFiles(
            resources.path("model"), resources.path("vocabulary"), resources.path("voices"), names
        )
        model = KokoroModel(files, resources.threads, device_of(card))
        model.speak("Ready.", model.voice((names[0],)), 1.0)
        # Pieces of all callers take turns: many at once on few cores are slower each and together.
        at_once = min(card.slots, max(1, resources.threads // THREADS_OF_PIECE))
        threads = ThreadPoolExecutor(at_once, thread_name_prefix="kokoro")
        self._loaded = _Loaded(card, model, threads)
        return Features(("text-to-speech",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Speak piece after piece."""
        if not isinstance(request, SpeechRequest):
            raise unsupported("kokoro", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        from inferd.engines.kokoro_model import RATE
        from inferd.engines.speech_out import SpokenPiece, said

        card, model, threads = self._loaded
        check_language(request.language, request.text)
        voice = model.voice(request.voices or (str(card.options.get("default_voice", "")),))

        async def speak(text: str) -> SpokenPiece | None:
            return await in_turn(threads, cancel, partial(model.speak, text, voice, request.speed))

        async with aclosing(said(request, RATE, speak)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """Let the running pieces end."""
        if self._loaded is not None:
            self._loaded.threads.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """The weights, twice while they are opened, the dictionaries, the activations."""
        size = sum(path.stat().st_size for path in files.values() if path.exists())
        declared = sum(file.size_bytes for file in card.files)
        return 2 * max(size, declared) + (500 << 20)
