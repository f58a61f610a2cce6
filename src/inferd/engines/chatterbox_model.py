"""Chatterbox in ONNX: a text and somebody's voice in, samples out. Imported in workers only.

Four graphs: one hears a recording of the voice, one embeds tokens, a language model writes speech
tokens (25 for a second), one makes sound of them. Resemble AI's two exports differ and are told
apart by their inputs: the first has 0.5 billion parameters and takes an `exaggeration`; Turbo has
0.35 billion, positions of its own, and wants silence behind the last token. What the graphs take,
the numbers of the tokens and the penalty are facts of the model cards of
onnx-community/chatterbox-ONNX and ResembleAI/chatterbox-turbo-ONNX.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from inferd.engines.onnx import Array, Device, open_session
from inferd.engines.onnx_language_model import OnnxLanguageModel
from inferd.errors import EngineFailed

Samples = NDArray[np.float32]

RATE = 24_000
START, STOP, SILENCE = 6561, 6562, 4299
SILENCES = 3
"""How many Turbo wants behind its last token."""
PENALTY = 1.2
"""What was said before is so much less likely."""
TOKENS_MAX = 1024


class Voice(NamedTuple):
    """What the model heard in a recording."""

    condition: Array
    """What the language model reads first, of shape (1, n, width)."""
    tokens: Array
    """The recording in speech tokens, of shape (1, n)."""
    speaker: Array
    features: Array


class GraphFiles(NamedTuple):
    """The model's files."""

    hears: Path
    embeds: Path
    writes: Path
    speaks: Path
    tokenizer: Path


class ChatterboxModel:
    """The four graphs and the tokenizer. Thread-safe."""

    def __init__(self, files: GraphFiles, threads: int, device: Device = "cpu") -> None:
        self._hears = open_session(files.hears, threads, device=device)
        self._embeds = open_session(files.embeds, threads, device=device)
        self._writes = OnnxLanguageModel(files.writes, threads, device)
        self._speaks = open_session(files.speaks, threads, device=device)
        self.expressive = "exaggeration" in self._embeds.inputs
        if self.expressive == self._writes.positions:
            raise EngineFailed("The graphs are of neither export of Chatterbox that is known here.")
        try:
            self._tokenizer = Tokenizer.from_file(str(files.tokenizer))
        except Exception as error:
            # The library raises nothing more exact.
            raise EngineFailed("The tokenizer cannot be read.", detail=repr(error)[:300]) from error

    def voice(self, recording: Samples) -> Voice:
        """Hear a voice: mono at RATE, between -1 and 1."""
        return Voice(*self._hears.run({"audio_values": recording[None]})[:4])

    def speak(
        self, text: str, voice: Voice, exaggeration: float, left: Callable[[], bool]
    ) -> Samples | None:
        """One piece of text; None where `left` said so in the middle."""
        written: list[int] = []
        heard = self._writes.begin()
        ids = [int(one) for one in self._tokenizer.encode(text).ids]
        places = [0 if one >= START else place - 1 for place, one in enumerate(ids)]
        told = np.concatenate((voice.condition, self._embedded(ids, places, exaggeration)), axis=1)
        for place in range(1, tokens_max(text) + 1):
            if left():
                return None
            token = _likeliest(self._writes.step(heard, told), written)
            if token == STOP:
                break
            written.append(token)
            told = self._embedded([token], [place], exaggeration)
        return self._sound(written, voice) if written else np.zeros(0, np.float32)

    def _embedded(self, ids: list[int], places: list[int], exaggeration: float) -> Array:
        feeds: dict[str, Array] = {"input_ids": np.array([ids], np.int64)}
        if self.expressive:
            feeds["position_ids"] = np.array([places], np.int64)
            feeds["exaggeration"] = np.array([exaggeration], np.float32)
        return self._embeds.run(feeds)[0]

    def _sound(self, written: list[int], voice: Voice) -> Samples:
        ending = [] if self.expressive else [SILENCE] * SILENCES
        tokens = np.array([[*voice.tokens.reshape(-1), *written, *ending]], np.int64)
        feeds = {
            "speech_tokens": tokens,
            "speaker_embeddings": voice.speaker,
            "speaker_features": voice.features,
        }
        return self._speaks.run(feeds)[0].reshape(-1).astype(np.float32)


def tokens_max(text: str) -> int:
    """Where a piece ends that the model does not end: thrice a slow reading, some seconds more."""
    return min(TOKENS_MAX, 100 + 5 * len(text))


def _likeliest(logits: NDArray[np.float32], written: list[int]) -> int:
    """The next token. START counts as written."""
    seen = np.unique(np.array([START, *written]))
    seen = seen[seen < len(logits)]
    scores = logits[seen]
    logits[seen] = np.where(scores > 0, scores / PENALTY, scores * PENALTY)
    return int(logits.argmax())
