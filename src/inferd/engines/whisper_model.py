"""faster-whisper behind types of our own. Imported in workers only.

A long recording is heard in blocks that are cut where it is quietest: the library keeps the
features of all that it is given, 115 KB for each second, and memory must not grow with length.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from inferd.engines.decode_audio import Samples
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import MICRO, Usage
from inferd.tasks.speech_recognition import Segment, TranscriptionRequest, Word

RATE = 16_000
BLOCK_SECONDS = 600
CUT_SECONDS = 60
"""Before the end of a block: where the quietest moment is looked for."""
QUIET_SECONDS = 0.25
PROMPT_CHARACTERS = 400
"""Of the text so far, given to the next block as its context."""


class WhisperModel:
    """One model. Its methods block and may be called from several threads."""

    def __init__(self, folder: Path, threads: int, compute_type: str) -> None:
        library: Any = import_module("faster_whisper")
        try:
            self._model: Any = library.WhisperModel(
                str(folder),
                device="cpu",
                compute_type=compute_type,
                cpu_threads=threads,
                local_files_only=True,
            )
        except Exception as error:
            # CTranslate2 raises RuntimeError, ValueError and others, with its own texts.
            raise EngineFailed(
                "The model is no Whisper model of CTranslate2.", detail=repr(error)[:500]
            ) from error
        self.multilingual = bool(self._model.model.is_multilingual)
        self.languages: frozenset[str] = frozenset(self._model.supported_languages)

    def check(self, request: TranscriptionRequest) -> None:
        """Raise BadRequest for what this model cannot do."""
        if not self.multilingual:
            if request.task == "translate":
                raise BadRequest("This model hears English only; it does not translate.")
            if request.language not in (None, "en"):
                raise BadRequest("This model hears English only.", param="language")
        elif request.language is not None and request.language not in self.languages:
            raise BadRequest(
                f"language is not one of {', '.join(sorted(self.languages))}.", param="language"
            )

    def language(self, samples: Samples, request: TranscriptionRequest) -> str:
        """The language of the recording: what was asked for, or what its beginning sounds like."""
        if request.language is not None or not self.multilingual:
            return request.language or "en"
        heard: tuple[str, float, Any] = self._model.detect_language(samples[: 30 * RATE])
        return heard[0]

    def segments(
        self, samples: Samples, request: TranscriptionRequest, language: str
    ) -> Iterator[Segment]:
        """The transcript, piece by piece; a step is one window of the recording."""
        total = len(samples) * MICRO // RATE
        count, said = 0, request.initial_prompt or ""
        for begin, end in _blocks(samples):
            told: Any = self._model.transcribe(
                samples[begin:end], **_options(request, language, said)
            )[0]
            offset = begin / RATE
            for one in told:
                said += str(one.text)
                heard = min(total, round((offset + one.end) * MICRO))
                yield _segment(one, count, offset, Usage(quantity=heard))
                count += 1


def _options(request: TranscriptionRequest, language: str, said: str) -> dict[str, Any]:
    carry = request.condition_on_previous_text or said == request.initial_prompt
    prompt = said[-PROMPT_CHARACTERS:] if carry else request.initial_prompt
    return {
        "language": language,
        "task": request.task,
        "beam_size": 5 if request.patience != 1.0 else 1,
        "patience": request.patience,
        "temperature": list(request.temperatures),
        "compression_ratio_threshold": request.compression_ratio_threshold,
        "log_prob_threshold": request.logprob_threshold,
        "no_speech_threshold": request.no_speech_threshold,
        "condition_on_previous_text": request.condition_on_previous_text,
        "initial_prompt": prompt or None,
        "suppress_tokens": list(request.suppress_tokens),
        "word_timestamps": request.word_times,
        "chunk_length": request.chunk_seconds,
        "vad_filter": request.vad,
    }


def _segment(one: Any, index: int, offset: float, usage: Usage) -> Segment:
    words = tuple(
        Word(str(w.word), offset + float(w.start), offset + float(w.end), float(w.probability))
        for w in one.words or ()
    )
    return Segment(
        id=index,
        seek=round(offset * 100) + int(one.seek),
        start=offset + float(one.start),
        end=offset + float(one.end),
        text=str(one.text),
        tokens=tuple(int(token) for token in one.tokens),
        temperature=float(one.temperature or 0.0),
        avg_logprob=float(one.avg_logprob),
        compression_ratio=float(one.compression_ratio),
        no_speech_prob=float(one.no_speech_prob),
        usage=usage,
        words=words,
    )


def _blocks(samples: Samples) -> Iterator[tuple[int, int]]:
    """(begin, end) of each block, cut at the quietest moment of its last minute."""
    begin = 0
    while len(samples) - begin > BLOCK_SECONDS * RATE:
        latest = begin + BLOCK_SECONDS * RATE
        tail = samples[latest - CUT_SECONDS * RATE : latest]
        width = int(QUIET_SECONDS * RATE)
        loudness = np.square(tail[: len(tail) // width * width].reshape(-1, width)).sum(1)
        cut = latest - len(tail) + int(loudness.argmin()) * width + width // 2
        yield begin, cut
        begin = cut
    yield begin, len(samples)
