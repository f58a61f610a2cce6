"""Films that tests make: pictures one after another, and what is said meanwhile."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
from PIL import Image

from inferd.tasks.media import Media
from tests.recordings import RATE, samples

FRAME_RATE = 5


def film(
    pictures: Sequence[Image.Image],
    seconds: float,
    sound: bytes | None = None,
    *,
    live: bool = False,
) -> bytes:
    """An MP4, each picture for an equal part of it; with the sound of a WAV file.

    `live`: a WebM that does not say how long it is, as browsers record it.
    """
    target: Any = _Pipe() if live else io.BytesIO()
    with av.open(target, "w", format="webm" if live else "mp4") as container:
        into: Any = container
        stream = into.add_stream("libvpx" if live else "libx264", rate=FRAME_RATE)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        voice = into.add_stream("aac", rate=RATE, layout="mono") if sound else None
        count = round(seconds * FRAME_RATE)
        for at in range(count):
            frame: Any = av.VideoFrame
            shown = frame.from_image(pictures[at * len(pictures) // count])
            shown.pts, shown.time_base = at, Fraction(1, FRAME_RATE)
            into.mux(stream.encode(shown))
        into.mux(stream.encode(None))
        if voice is not None and sound is not None:
            _speak(into, voice, sound)
    return bytes(target.content) if live else target.getvalue()


def film_media(content: bytes) -> Media:
    """As a task takes it."""
    return Media("video", "video/mp4", len(content), data=content)


class _Pipe(io.RawIOBase):
    """What cannot be gone back in."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, piece: Any) -> int:
        self.content += piece
        return len(piece)


def _speak(into: Any, voice: Any, sound: bytes) -> None:
    frame = av.AudioFrame.from_ndarray(samples(sound)[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    resampler = av.AudioResampler(format=voice.format, layout="mono", rate=RATE)
    fifo: Any = av.AudioFifo()
    for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
        fifo.write(resampled)
    while piece := fifo.read(voice.frame_size or 1024, partial=True):
        into.mux(voice.encode(piece))
    into.mux(voice.encode(None))
