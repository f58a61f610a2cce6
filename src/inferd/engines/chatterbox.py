"""Text to speech with Chatterbox on ONNX Runtime, in any voice of which there is a recording.

The card's file `model` is a folder as on the hub: tokenizer.json, default_voice.wav and the graphs.
Options: `graphs`, their folder (`onnx`); `language_model`, the file of the largest graph, which
comes in several precisions (`language_model.onnx`); `exaggeration`, how lively it speaks (0.5);
`device` as in onnx.py. No watermark is put into the sound.

The text is spoken piece by piece, a sentence each, and every piece is sent as soon as it is
there; a request that is cancelled stops at the next speech token, a 25th of a second.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.kokoro_text import check_language
from inferd.engines.turns import in_turn
from inferd.errors import BadRequest
from inferd.tasks.every import Event
from inferd.tasks.media import Media
from inferd.tasks.text_to_speech import SpeechRequest

if TYPE_CHECKING:
    from inferd.engines.chatterbox_model import ChatterboxModel, Samples, Voice

DEFAULT_VOICE = "default"
RECORDING_SECONDS = 10
"""So much of a recording is heard; the model was made for no more."""
RECORDING_SECONDS_MAX = 600
VOICES_KEPT = 16


class ChatterboxEngine:
    """One Chatterbox, and the voices that it heard last."""

    def __init__(self) -> None:
        self._loaded: _Speaker | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Open the four graphs and hear the default voice."""
        from inferd.engines.chatterbox_model import ChatterboxModel, GraphFiles
        from inferd.engines.onnx import device_of

        folder = resources.path("model")
        graphs = folder / str(card.options.get("graphs", "onnx"))
        files = GraphFiles(
            graphs / "speech_encoder.onnx",
            graphs / "embed_tokens.onnx",
            graphs / str(card.options.get("language_model", "language_model.onnx")),
            graphs / "conditional_decoder.onnx",
            folder / "tokenizer.json",
        )
        model = ChatterboxModel(files, resources.threads, device_of(card))
        speaker = _Speaker(card, model, folder / "default_voice.wav")
        if speaker.default.exists():
            speaker.voice(())
        self._loaded = speaker
        return Features(("text-to-speech",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Speak piece after piece."""
        if not isinstance(request, SpeechRequest):
            raise unsupported("chatterbox", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        from inferd.engines.chatterbox_model import RATE
        from inferd.engines.speech_out import SpokenPiece, said

        speaker = self._loaded
        _check(request)
        loop = asyncio.get_running_loop()
        voice = await loop.run_in_executor(speaker.threads, speaker.voice, request.recordings)

        async def speak(text: str) -> SpokenPiece | None:
            work = partial(speaker.speak, text, voice, cancel.is_set)
            samples = await in_turn(speaker.threads, cancel, work)
            return None if samples is None else SpokenPiece(samples)

        async with aclosing(said(request, RATE, speak)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """Let the running pieces end."""
        if self._loaded is not None:
            self._loaded.threads.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """What the card says, else the folder's files and as much again while they are opened."""
        found = [one for path in files.values() if path.is_dir() for one in path.rglob("*")]
        return 2 * sum(one.stat().st_size for one in found if one.is_file()) + (1 << 30)


class _Speaker:
    """What is loaded. Thread-safe."""

    def __init__(self, card: ModelCard, model: ChatterboxModel, default: Path) -> None:
        self.threads = ThreadPoolExecutor(card.slots, "chatterbox")
        self.default = default
        self._model = model
        self._exaggeration = float(str(card.options.get("exaggeration", 0.5)))
        self._heard: OrderedDict[bytes, Voice] = OrderedDict()
        self._lock = Lock()

    def speak(self, text: str, voice: Voice, left: Callable[[], bool]) -> Samples | None:
        return self._model.speak(text, voice, self._exaggeration, left)

    def voice(self, recordings: tuple[Media, ...]) -> Voice:
        """Of recordings, or the model's own. Raises BadRequest for what cannot be heard."""
        recordings = recordings or (self._own(),)
        key = b"".join(sha256(each.read()).digest() for each in recordings)
        with self._lock:
            if key in self._heard:
                self._heard.move_to_end(key)
                return self._heard[key]
        voice = self._model.voice(samples_of(recordings))
        with self._lock:
            self._heard[key] = voice
            if len(self._heard) > VOICES_KEPT:
                self._heard.popitem(last=False)
        return voice

    def _own(self) -> Media:
        try:
            size = self.default.stat().st_size
        except OSError:
            raise BadRequest(
                "This model has no voice of its own here: name one that was added.", param="voice"
            ) from None
        return Media("audio", "audio/wav", size, path=str(self.default))


def samples_of(recordings: tuple[Media, ...]) -> Samples:
    """The beginning of recordings one after another, between -1 and 1."""
    import numpy as np

    from inferd.engines.chatterbox_model import RATE
    from inferd.engines.decode_audio import as_float, decode_audio

    found, wanted = [np.zeros(0, np.int16)], RECORDING_SECONDS * RATE
    for each in recordings:
        found.append(decode_audio(each, RATE, RECORDING_SECONDS_MAX, "voice")[:wanted])
        wanted -= len(found[-1])
        if not wanted:
            break
    samples = np.concatenate(found)
    if len(samples) < RATE:
        raise BadRequest("The recording of the voice is shorter than a second.", param="voice")
    return as_float(samples)


def _check(request: SpeechRequest) -> None:
    """Raise BadRequest for what this model cannot do."""
    check_language(request.language, request.text)
    if request.speed != 1:
        raise BadRequest("This model speaks at its own speed: speed is 1.", param="speed")
    if request.word_times:
        raise BadRequest("This model does not tell when a word is said.", param="return_timestamps")
    if not request.recordings and set(request.voices) - {DEFAULT_VOICE}:
        raise BadRequest(
            f"There is no voice {request.voices[0][:64]!r}. There is {DEFAULT_VOICE}.",
            param="voice",
        )
