"""Samples to encoded audio, piece by piece. Imported in workers only."""

from __future__ import annotations

import io
import struct
from typing import Any, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from inferd.tasks.text_to_speech import AudioFormat

UNKNOWN_SIZE = 0xFFFF_FFFF
"""In the header of a WAV that is sent before its end is known; players read on to the end."""

_CODECS: dict[AudioFormat, tuple[str, str, dict[str, str]]] = {
    # Neither a length table nor tags: both would be written at the end, into the beginning.
    "mp3": ("libmp3lame", "mp3", {"write_xing": "0", "id3v2_version": "0"}),
    "opus": ("libopus", "ogg", {}),
    "flac": ("flac", "flac", {}),
}
_BIT_RATES: dict[AudioFormat, int] = {"mp3": 64_000, "opus": 32_000}
OPUS_RATES = (8000, 12_000, 16_000, 24_000, 48_000)


class AudioEncoder(Protocol):
    """One recording on its way out."""

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        """What can be sent of it now."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...


def audio_encoder(
    audio_format: AudioFormat,
    rate_in: int,
    rate_out: int | None = None,
    *,
    bit_rate: int | None = None,
    samples_total: int | None = None,
) -> AudioEncoder:
    """An encoder of mono float32. `samples_total` where the length is known beforehand."""
    rate = rate_out or rate_in
    if audio_format in ("wav", "pcm"):
        known = samples_total if rate == rate_in else None
        return _Pcm(rate_in, rate, wav=audio_format == "wav", samples_total=known)
    return _Compressed(audio_format, rate_in, rate, bit_rate)


class _Pcm:
    def __init__(
        self, rate_in: int, rate_out: int, *, wav: bool, samples_total: int | None
    ) -> None:
        self._resampler = av.AudioResampler("s16", "mono", rate_out)
        self._rate_in = rate_in
        size = None if samples_total is None else samples_total * 2
        self._head = wav_header(rate_out, size) if wav else b""

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        head, self._head = self._head, b""
        return head + self._converted(_frame(samples, self._rate_in))

    def _converted(self, frame: Any) -> bytes:
        told: list[Any] = list(self._resampler.resample(frame))
        return b"".join(one.to_ndarray().astype("<i2").tobytes() for one in told)

    def finish(self) -> bytes:
        return self._head + self._converted(None)


class _Compressed:
    def __init__(
        self, audio_format: AudioFormat, rate_in: int, rate_out: int, bit_rate: int | None
    ) -> None:
        codec, container, options = _CODECS[audio_format]
        self._sink = _Sink()
        self._container: Any = av.open(self._sink, "w", format=container, options=options)
        self._stream: Any = self._container.add_stream(codec, rate=rate_out)
        self._stream.layout = "mono"
        rate = bit_rate or _BIT_RATES.get(audio_format)
        if rate is not None:
            self._stream.bit_rate = rate
        self._rate_in = rate_in

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        self._container.mux(self._stream.encode(_frame(samples, self._rate_in)))
        return self._sink.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """Takes bytes in order; cannot go back, like the wire."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._held += data
        return len(data)

    def take(self) -> bytes:
        """What has come since the last time."""
        told = bytes(self._held)
        self._held.clear()
        return told


def _frame(samples: NDArray[np.float32], rate: int) -> Any:
    whole = (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    frame: Any = av.AudioFrame.from_ndarray(whole.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = rate
    return frame


def wav_header(rate: int, data_bytes: int | None) -> bytes:
    """44 bytes before 16 bit mono samples, as Microsoft's WAVE describes them."""
    size = UNKNOWN_SIZE if data_bytes is None else data_bytes
    riff = UNKNOWN_SIZE if data_bytes is None else data_bytes + 36
    return (
        struct.pack("<4sI4s", b"RIFF", riff, b"WAVE")
        + struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
        + struct.pack("<4sI", b"data", size)
    )
