"""Speech on its way out: encoded piece by piece, with the times of its words. For workers only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from inferd.engines.encode_audio import AudioEncoder, audio_encoder
from inferd.tasks.base import CHUNK_BYTES_MAX
from inferd.tasks.text_to_speech import SpeechRequest, SpokenWord


class Speech:
    """What was said so far, encoded."""

    def __init__(self, request: SpeechRequest, rate: int, *, alone: bool) -> None:
        self._request = request
        self._rate = rate
        self._alone = alone
        self._encoder: AudioEncoder | None = None
        self.samples = 0
        self.words: list[SpokenWord] = []

    def add(
        self, samples: NDArray[np.float32], words: Sequence[SpokenWord] = ()
    ) -> Iterator[bytes]:
        """The encoded piece, cut into chunks. Times of words count from its start."""
        request, count = self._request, len(samples)
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
                for word in words
            ]
        self.samples += count
        yield from _cut(self._encoder.encode(samples))

    def finish(self) -> Iterator[bytes]:
        """What the encoder still holds."""
        if self._encoder is not None:
            yield from _cut(self._encoder.finish())


def _cut(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), CHUNK_BYTES_MAX):
        yield data[at : at + CHUNK_BYTES_MAX]
