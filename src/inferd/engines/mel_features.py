"""Log-mel features, some seconds at a time. Imported in workers only.

The library computes them for a whole recording at once, which takes half a megabyte for each
second of it; here the peak does not grow with the length. The figures are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE_FRAMES = 3000
WINDOW_SECONDS = 30
"""What Whisper's encoder hears at once."""

Floats = NDArray[np.float32]


class MelFeatures:
    """Stands for the library's FeatureExtractor, of one request alone.

    `chunk_seconds` (1 to 30) is how much of a recording each step takes.
    """

    def __init__(self, library: Any, chunk_seconds: int) -> None:
        self.sampling_rate: int = library.sampling_rate
        self.hop_length: int = library.hop_length
        self.n_fft: int = library.n_fft
        self.mel_filters: Floats = library.mel_filters
        self.chunk_length = chunk_seconds
        self.n_samples = chunk_seconds * self.sampling_rate
        self.nb_max_frames = self.n_samples // self.hop_length
        self.time_per_frame = self.hop_length / self.sampling_rate
        self._window = np.hanning(self.n_fft + 1)[:-1].astype(np.float32)

    def __call__(
        self, waveform: Floats, padding: int = 160, chunk_length: int | None = None
    ) -> Floats:
        """(mel bands, frames of 10 ms), one frame more than the waveform has."""
        assert chunk_length in (None, self.chunk_length), "one length for each request"
        half = self.n_fft // 2
        padded = np.pad(np.pad(waveform, (0, padding)), half, mode="reflect")
        count = 1 + (len(padded) - self.n_fft) // self.hop_length - 1
        mel = np.empty((len(self.mel_filters), count), np.float32)
        for begin in range(0, count, PIECE_FRAMES):
            end = min(count, begin + PIECE_FRAMES)
            mel[:, begin:end] = self._piece(padded, begin, end)
        if count:
            np.maximum(mel, mel.max() - 8.0, out=mel)
        mel += 4.0
        mel /= 4.0
        return mel

    def _piece(self, padded: Floats, begin: int, end: int) -> Floats:
        """Logarithms of the power in each band, frames `begin` to `end`."""
        hop = self.hop_length
        stretch = padded[begin * hop : (end - 1) * hop + self.n_fft]
        frames = np.lib.stride_tricks.sliding_window_view(stretch, self.n_fft)[::hop]
        spectrum = np.fft.rfft(frames * self._window, axis=-1)
        power = np.square(np.abs(spectrum)).astype(np.float32)
        floor = np.maximum(self.mel_filters @ power.T, np.float32(1e-10))
        return np.log10(floor).astype(np.float32)
