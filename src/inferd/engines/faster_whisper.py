"""Speech recognition with faster-whisper: Whisper models in CTranslate2's format.

Options of a card: `compute_type` ("int8" by default), `device` ("cpu" by default, "cuda", "auto"),
`translates` (true by default; false for a model that was not trained to).
Its files have the names that the library expects as their roles (model.bin, config.json,
tokenizer.json, vocabulary.txt or .json, preprocessor_config.json), or lie in one folder, `model`.

Each request has a thread that asks for one window after another; the model computes them in the
order in which they were asked for, so a short recording waits for a window of a long one and no
longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.tasks.base import MICRO, NOTHING, Counted, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.speech_recognition import Segment, Transcribed, TranscriptionRequest

if TYPE_CHECKING:
    from inferd.engines.whisper_model import WhisperModel

_LIBRARIES_BYTES = 200 << 20
_HOUR_BYTES = 3600 * 16_000 * 2
"""Of a recording as it is held: 16,000 samples of 16 bits each second."""


class _Loaded(NamedTuple):
    model: WhisperModel
    threads: ThreadPoolExecutor


class FasterWhisperEngine:
    """One Whisper model."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Open the model."""
        from inferd.engines.whisper_model import WhisperModel

        compute_type = str(card.options.get("compute_type", "int8"))
        device = str(card.options.get("device", "cpu"))
        folder = resources.path("model") if "model" in resources.files else resources.folder()
        model = WhisperModel(folder, resources.threads, compute_type, device)
        model.translates = model.multilingual and bool(card.options.get("translates", True))
        threads = ThreadPoolExecutor(card.slots, thread_name_prefix="whisper")
        self._loaded = _Loaded(model, threads)
        return Features(("automatic-speech-recognition",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Decode, count, then one segment after another."""
        if not isinstance(request, TranscriptionRequest):
            raise unsupported("faster_whisper", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        from inferd.engines.decode_audio import decode_audio
        from inferd.engines.whisper_model import RATE, Left

        model, threads = self._loaded
        loop = asyncio.get_running_loop()
        model.check(request)
        samples = await loop.run_in_executor(
            threads, decode_audio, request.audio, RATE, request.seconds_max
        )
        total = Usage(quantity=len(samples) * MICRO // RATE)
        yield Counted(total)
        if cancel.is_set():
            yield Stopped(NOTHING)
            return
        hearing = model.hearing(samples, request, cancel.is_set)
        heard = NOTHING
        try:
            language = await loop.run_in_executor(threads, hearing.language)
            segments = hearing.segments(language)
            while segment := await loop.run_in_executor(threads, _next, segments):
                heard = segment.usage
                yield segment
                if cancel.is_set():
                    raise Left  # noqa: TRY301 the one way out, wherever the client left
        except Left:
            yield Stopped(heard)
            return
        yield Transcribed(language, len(samples) * 1000 // RATE, total)

    async def close(self) -> None:
        """Let the running windows end."""
        if self._loaded is not None:
            self._loaded.threads.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """The weights, twice while they are opened, and some hours of recordings."""
        size = sum(path.stat().st_size for path in files.values() if path.exists())
        declared = sum(file.size_bytes for file in card.files)
        return 2 * max(size, declared) + _LIBRARIES_BYTES + 3 * _HOUR_BYTES


def _next(segments: Iterator[Segment]) -> Segment | None:
    return next(segments, None)
