"""Text to speech with Kokoro on ONNX Runtime.

Options of a card: `voices`, the names in the order in which the file holds them,
`default_voice`, and `device` as in onnx.py. Files: `model` (ONNX), `vocabulary` (JSON), `voices`
(float32, 510 × 256 each).

The text is spoken piece by piece, a sentence each, and every piece is sent as soon as it is
there; a request that is cancelled stops at the next piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.kokoro_text import check_language, pieces
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import CHUNK_BYTES_MAX, MICRO, NOTHING, Chunk, Counted, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.text_to_speech import SpeechRequest, Spoken, SpokenWord

if TYPE_CHECKING:
    from inferd.engines.encode_audio import AudioEncoder
    from inferd.engines.kokoro_model import KokoroModel
    from inferd.engines.kokoro_model import Spoken as SpokenPiece


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
        threads = ThreadPoolExecutor(card.slots, thread_name_prefix="kokoro")
        self._loaded = _Loaded(card, model, threads)
        return Features(("text-to-speech",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Speak piece after piece."""
        if not isinstance(request, SpeechRequest):
            raise unsupported("kokoro", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        from inferd.engines.kokoro_model import RATE

        card, model, threads = self._loaded
        check_language(request.language, request.text)
        voice = model.voice(request.voices or (str(card.options.get("default_voice", "")),))
        texts = pieces(request.text)
        total = Usage(quantity=len(request.text) * MICRO)
        yield Counted(total)
        loop = asyncio.get_running_loop()
        speech, spoken = _Speech(request, alone=len(texts) == 1), NOTHING
        for text in texts:
            if cancel.is_set():
                yield Stopped(spoken)
                return
            piece = await loop.run_in_executor(threads, model.speak, text, voice, request.speed)
            spoken = Usage(quantity=min(spoken.quantity + len(text) * MICRO, total.quantity))
            for data in speech.add(piece):
                yield Chunk(0, data, spoken)
        if not speech.samples:
            raise BadRequest("There is nothing in the text that can be spoken.", param="input")
        for data in speech.finish():
            yield Chunk(0, data, total)
        duration_ms = speech.samples * 1000 // RATE
        yield Spoken(duration_ms, request.sample_rate or RATE, tuple(speech.words), total)

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


class _Speech:
    """What was said so far, encoded."""

    def __init__(self, request: SpeechRequest, *, alone: bool) -> None:
        self._request = request
        self._alone = alone
        self._encoder: AudioEncoder | None = None
        self.samples = 0
        self.words: list[SpokenWord] = []

    def add(self, piece: SpokenPiece) -> Iterator[bytes]:
        """The encoded piece, cut into chunks."""
        from inferd.engines.encode_audio import audio_encoder
        from inferd.engines.kokoro_model import RATE

        request, count = self._request, len(piece.samples)
        if not count:
            return
        if self._encoder is None:
            self._encoder = audio_encoder(
                request.audio_format,
                RATE,
                request.sample_rate,
                bit_rate=request.bit_rate,
                samples_total=count if self._alone else None,
            )
        if request.word_times:
            begin = self.samples / RATE
            self.words += [
                SpokenWord(word.text, round(begin + word.start, 3), round(begin + word.end, 3))
                for word in piece.words
            ]
        self.samples += count
        yield from _cut(self._encoder.encode(piece.samples))

    def finish(self) -> Iterator[bytes]:
        """What the encoder still holds."""
        if self._encoder is not None:
            yield from _cut(self._encoder.finish())


def _cut(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), CHUNK_BYTES_MAX):
        yield data[at : at + CHUNK_BYTES_MAX]
