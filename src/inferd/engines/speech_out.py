"""Speech on its way out: encoded piece by piece, with the times of its words. For workers only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.engines.encode_audio import AudioEncoder, audio_encoder
from inferd.engines.speech_text import pieces
from inferd.errors import BadRequest
from inferd.tasks.base import CHUNK_BYTES_MAX, MICRO, NOTHING, Chunk, Counted, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.text_to_speech import SpeechRequest, Spoken, SpokenWord


class SpokenPiece(NamedTuple):
    """One piece of text as sound."""

    samples: NDArray[np.float32]
    """Empty where there is nothing to say."""
    words: tuple[SpokenWord, ...] = ()
    """Times from the start of the piece."""


async def said(
    request: SpeechRequest, rate: int, speak: Callable[[str], Awaitable[SpokenPiece | None]]
) -> AsyncGenerator[Event]:
    """All events of a text that is spoken piece after piece; None of `speak`: the client left.

    Raises BadRequest for a text in which there is nothing to say.
    """
    texts = pieces(request.text)
    total = Usage(quantity=len(request.text) * MICRO)
    yield Counted(total)
    speech, spoken = _Speech(request, rate, alone=len(texts) == 1), NOTHING
    for text in texts:
        piece = await speak(text)
        if piece is None:
            yield Stopped(spoken)
            return
        spoken = Usage(quantity=min(spoken.quantity + len(text) * MICRO, total.quantity))
        for data in speech.add(piece):
            yield Chunk(0, data, spoken)
    if not speech.samples:
        raise BadRequest("There is nothing in the text that can be spoken.", param="input")
    for data in speech.finish():
        yield Chunk(0, data, total)
    duration_ms = speech.samples * 1000 // rate
    yield Spoken(duration_ms, request.sample_rate or rate, tuple(speech.words), total)


class _Speech:
    """What was said so far, encoded."""

    def __init__(self, request: SpeechRequest, rate: int, *, alone: bool) -> None:
        self._request = request
        self._rate = rate
        self._alone = alone
        self._encoder: AudioEncoder | None = None
        self.samples = 0
        self.words: list[SpokenWord] = []

    def add(self, piece: SpokenPiece) -> Iterator[bytes]:
        """The encoded piece, cut into chunks."""
        request, count = self._request, len(piece.samples)
        if not count:
            return
        if self._encoder is None:
            self._encoder = audio_encoder(
                request.audio_format,
                self._rate,
                request.sample_rate,
                bit_rate=request.bit_rate,
                samples_total=count if self._alone else None,
            )
        if request.word_times:
            begin = self.samples / self._rate
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
