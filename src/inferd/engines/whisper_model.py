"""faster-whisper behind types of our own. Imported in workers only.

Each request hears through a view of its own: the library keeps what belongs to one request (the
length of a step) on the model, and asks nobody whether to go on.

A long recording is heard in blocks that are cut where it is quietest, so that memory does not
grow with its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.engines.decode_audio import Samples, as_float
from inferd.engines.mel_features import WINDOW_SECONDS, MelFeatures
from inferd.engines.shared_decoder import SharedDecoder
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import MICRO, Usage
from inferd.tasks.speech_recognition import Segment, SpeechFilter, TranscriptionRequest, Word

RATE = 16_000
BLOCK_SECONDS = 600
CUT_SECONDS = 60
"""Before the end of a block: where the quietest moment is looked for."""
QUIET_SECONDS = 0.25
PROMPT_CHARACTERS = 400
"""Of the text so far, given to the next block as its context."""


class Left(Exception):
    """The client has left; raised where the next window would begin."""


class WhisperModel:
    """One model. Its methods block and may be called from several threads."""

    def __init__(self, folder: Path, threads: int, compute_type: str, device: str) -> None:
        library: Any = import_module("faster_whisper")
        try:
            self._model: Any = library.WhisperModel(
                str(folder),
                device=device,
                compute_type=compute_type,
                cpu_threads=threads,
                local_files_only=True,
            )
        except Exception as error:
            # CTranslate2 raises RuntimeError, ValueError and others, with its own texts.
            raise EngineFailed(
                "The model is no Whisper model of CTranslate2.", detail=repr(error)[:500]
            ) from error
        if self._model.model.device == "cpu":
            storage: Any = import_module("ctranslate2").StorageView
            self._model.model = SharedDecoder(self._model.model, storage)
        self.multilingual = bool(self._model.model.is_multilingual)
        self.translates = self.multilingual
        self.languages: frozenset[str] = frozenset(self._model.supported_languages)
        self._vocabulary_size = int(self._model.hf_tokenizer.get_vocab_size())

    def check(self, request: TranscriptionRequest) -> None:
        """Raise BadRequest for what this model cannot do."""
        if request.task == "translate" and not self.translates:
            raise BadRequest("This model does not translate.")
        if not self.multilingual:
            if request.language not in (None, "en"):
                raise BadRequest("This model hears English only.", param="language")
        elif request.language is not None and request.language not in self.languages:
            raise BadRequest(
                f"language is not one of {', '.join(sorted(self.languages))}.", param="language"
            )
        # The library writes wherever such a number points.
        if max(request.suppress_tokens, default=0) >= self._vocabulary_size:
            raise BadRequest(
                f"suppress_tokens holds ids below {self._vocabulary_size}.", param="suppress_tokens"
            )

    def hearing(
        self, samples: Samples, request: TranscriptionRequest, left: Callable[[], bool]
    ) -> Hearing:
        """One request. `left` is asked before each window."""
        return Hearing(self._model, samples, request, left)


class Hearing:
    """A recording on its way to text. Used by one thread at a time."""

    def __init__(
        self,
        model: Any,
        samples: Samples,
        request: TranscriptionRequest,
        left: Callable[[], bool],
    ) -> None:
        self._samples = samples
        self._request = request
        self._left = left
        self._first: tuple[NDArray[np.float32], Any] | None = None
        self._encode: Callable[[NDArray[np.float32]], Any] = model.encode
        self._view: Any = copy(model)
        self._view.encode = self._encode_window
        self._view.feature_extractor = MelFeatures(model.feature_extractor, request.chunk_seconds)

    def language(self) -> str:
        """What was asked for, or what the beginning sounds like. Raises Left."""
        if self._request.language is not None or not self._view.model.is_multilingual:
            return self._request.language or "en"
        seconds = self._request.chunk_seconds
        features = self._view.feature_extractor(as_float(self._samples[: seconds * RATE]))
        window = np.zeros((len(features), WINDOW_SECONDS * 100), np.float32)
        window[:, : features.shape[1] - 1] = features[:, :-1]
        heard = self._encode_window(window)
        # A recording that fits one window is not encoded again.
        self._first = (window, heard)
        likely: list[tuple[str, float]] = self._view.model.detect_language(heard)[0]
        return likely[0][0].removeprefix("<|").removesuffix("|>")

    def segments(self, language: str) -> Iterator[Segment]:
        """The transcript, piece by piece; a step is one window of the recording. Raises Left."""
        request, total = self._request, len(self._samples) * MICRO // RATE
        count, said = 0, request.initial_prompt or ""
        for begin, end in _blocks(self._samples):
            told: Any = self._view.transcribe(
                as_float(self._samples[begin:end]), **_options(request, language, said)
            )[0]
            offset = begin / RATE
            for one in told:
                said += str(one.text)
                heard = min(total, round((offset + one.end) * MICRO))
                yield _segment(one, count, offset, Usage(quantity=heard))
                count += 1

    def _encode_window(self, features: NDArray[np.float32]) -> Any:
        if self._left():
            raise Left
        first, self._first = self._first, None
        if first is not None and np.array_equal(first[0], features):
            return first[1]
        return self._encode(features)


def _options(request: TranscriptionRequest, language: str, said: str) -> dict[str, Any]:
    carry = request.condition_on_previous_text or said == request.initial_prompt
    prompt = said[-PROMPT_CHARACTERS:] if carry else request.initial_prompt
    return {
        "language": language,
        "task": request.task,
        # Patience is a wish about beams; without it the likeliest token is taken.
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
        "vad_filter": request.vad is not None,
        "vad_parameters": _vad(request.vad) if request.vad is not None else None,
    }


def _vad(wish: SpeechFilter) -> dict[str, Any]:
    return {
        "threshold": wish.threshold,
        "min_silence_duration_ms": wish.silence_ms,
        "speech_pad_ms": wish.padding_ms,
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
        loudness = np.square(as_float(tail[: len(tail) // width * width]).reshape(-1, width)).sum(1)
        cut = latest - len(tail) + int(loudness.argmin()) * width + width // 2
        yield begin, cut
        begin = cut
    yield begin, len(samples)
