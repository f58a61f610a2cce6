"""A film to a few pictures, evenly spread over it. Imported in workers only; blocks.

The file is opened in a decoder, a child process under limits of memory and time, from bytes that
lie there: no protocol, no other file, no network. Only demuxers and codecs of a list are opened.
Where the film says how long it is, its middle parts are sought; where it does not, all of it is
decoded and thinned out on the way.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inferd.engines import decode_audio
from inferd.engines.decoder_pool import decoders
from inferd.engines.decoder_wire import Job, Made
from inferd.errors import BadRequest
from inferd.tasks.media import Media

DEMUXERS = frozenset("asf avi matroska,webm mov,mp4,m4a,3gp,3g2,mj2 ogg".split())  # noqa: SIM905 as text
CODECS = frozenset(
    "av1 h264 hevc libdav1d mjpeg mpeg1video mpeg2video mpeg4 theora vp8 vp9".split()  # noqa: SIM905
)
_OPENING = {
    "format_whitelist": ",".join(sorted(DEMUXERS)),
    "codec_whitelist": ",".join(sorted(CODECS | decode_audio.CODECS)),
    "protocol_whitelist": "none",
}
"""Checked before a demuxer's first byte: a list of files or of URLs would open what it names."""
CPU_SECONDS_MAX = 60
"""For one film: eight pictures of two minutes in 1080p take three."""
PIXELS_MAX = 9_000_000
"""Of a picture as it is stored: 4096 x 2176 are read."""
SIDE_MIN = 2
FRAMES_MAX = 32
"""What a card may ask for."""
HELD = 4
"""So many times as many are held of a film of unknown length."""
UNREADABLE = "The film cannot be read: it is broken, or of a format that is not read here."

Pixels = NDArray[np.uint8]


class Film(NamedTuple):
    """What is seen of a film."""

    pictures: tuple[Image.Image, ...]
    """Of one size, in their order; none of a recording without pictures."""
    seconds: tuple[float, ...]
    """When each of them is shown."""
    sound: bool
    """There is sound that is read here."""


class Wish(NamedTuple):
    """What is asked of a film."""

    frames: int
    """At most so many pictures."""
    pixels_max: int
    """Larger ones are shrunk to so many pixels."""
    seconds_max: float
    """A longer film is refused."""


class _Shot(NamedTuple):
    seconds: float
    pixels: Pixels


def decode_video(media: Media, wish: Wish, param: str = "video") -> Film:
    """Pictures of the film, turned as its header says. Raises BadRequest with a fixed sentence."""
    pixels, bytes_max = bytearray(), wish.frames * wish.pixels_max * 3

    def keep(data: bytearray) -> None:
        if len(pixels) + len(data) > bytes_max:
            raise ValueError("more pixels than can be")
        pixels.extend(data)

    job = Job(
        "frames",
        media,
        param,
        CPU_SECONDS_MAX,
        seconds_max=wish.seconds_max,
        frames=min(FRAMES_MAX, wish.frames),
        pixels_max=wish.pixels_max,
    )
    made = decoders("film").run(job, keep)
    size, each = (made.width, made.height), made.width * made.height * 3
    pictures = tuple(
        Image.frombytes("RGB", size, bytes(pixels[at * each : (at + 1) * each]))
        for at in range(len(made.seconds))
    )
    return Film(pictures, made.seconds, made.sound)


def decode_here(job: Job, send: Callable[[bytes], None]) -> Made:
    """In the decoder: the pictures one after another. Raises BadRequest, MemoryError."""
    try:
        content = job.media.read()
        with av.open(io.BytesIO(content), options=_OPENING, metadata_errors="ignore") as container:
            sound = _has_sound(container)
            if not container.streams.video and sound:
                return Made(sound=True)
            found = _shots(container, _stream(container, job.param), job)
    except (BadRequest, ConnectionError, MemoryError):
        raise
    except Exception as error:
        # The library's errors name addresses and files; none of it is for callers.
        raise BadRequest(UNREADABLE, param=job.param, detail=repr(error)[:300]) from error
    if not found:
        raise BadRequest("The film has no pictures in it.", param=job.param)
    # A film may change its size on the way.
    shots = [shot for shot in found if shot.pixels.shape == found[0].pixels.shape]
    for shot in shots:
        send(shot.pixels.tobytes())
    height, width = shots[0].pixels.shape[:2]
    return Made("RGB", width, height, tuple(shot.seconds for shot in shots), sound)


def warm() -> None:
    """In the decoder, before its memory is limited: load all that it needs."""
    black: Any = av.VideoFrame.from_ndarray(np.zeros((4, 4, 3), np.uint8), format="rgb24")
    black.reformat(width=2, height=2, format="yuv420p")


def _has_sound(container: Any) -> bool:
    contexts = [stream.codec_context for stream in container.streams.audio[:1]]
    return any(one is not None and one.name in decode_audio.CODECS for one in contexts)


def _stream(container: Any, param: str) -> Any:
    """The first pictures in it, checked as far as headers go."""
    if str(container.format.name) not in DEMUXERS or not container.streams.video:
        raise BadRequest(UNREADABLE, param=param)
    stream = container.streams.video[0]
    codec = stream.codec_context
    if codec is None or codec.name not in CODECS:
        raise BadRequest(UNREADABLE, param=param)
    _check_size(codec.width, codec.height, param)
    # One film must not take the cores from other requests.
    codec.thread_count = 1
    return stream


def _check_size(width: int, height: int, param: str) -> None:
    if min(width, height) < SIDE_MIN or width * height > PIXELS_MAX:
        raise BadRequest(
            f"The film is {width} x {height} pixels; {SIDE_MIN} a side to "
            f"{PIXELS_MAX // 1_000_000} million in all are read.",
            param=param,
        )


def _shots(container: Any, stream: Any, job: Job) -> list[_Shot]:
    begin = float((stream.start_time or 0) * stream.time_base)
    if container.duration:
        seconds = container.duration / av.time_base
        _check_length(seconds, job)
        if found := list(_sought(container, stream, job, begin, seconds)):
            return found
        container.seek(0)
    return _thinned(_seen(container, stream, job, begin), job.frames)


def _check_length(seconds: float, job: Job) -> None:
    if seconds > job.seconds_max:
        raise BadRequest(f"The film is longer than {job.seconds_max:g} seconds.", param=job.param)


def _sought(container: Any, stream: Any, job: Job, begin: float, seconds: float) -> Iterator[_Shot]:
    """The middle of each part of a film whose length is known; each picture once."""
    last = -1.0
    for index in range(job.frames):
        wanted = (index + 0.5) * seconds / job.frames
        container.seek(int((begin + wanted) * av.time_base))
        found: Any = None
        for frame in container.decode(stream):
            found = frame
            if _time(frame, begin) >= wanted:
                break
        if found is not None and _time(found, begin) > last:
            last = _time(found, begin)
            yield _Shot(last, _pixels(found, job))


def _seen(container: Any, stream: Any, job: Job, begin: float) -> Iterator[_Shot]:
    """Every picture."""
    for frame in container.decode(stream):
        seconds = _time(frame, begin)
        _check_length(seconds, job)
        yield _Shot(seconds, _pixels(frame, job))


def _thinned(shots: Iterator[_Shot], count: int) -> list[_Shot]:
    """`count` of them, evenly spread, whatever their number: never many times more are held."""
    kept: list[_Shot] = []
    step = 1
    for at, shot in enumerate(shots):
        if at % step == 0:
            kept.append(shot)
        if len(kept) > HELD * count:
            kept, step = kept[::2], 2 * step
    if len(kept) <= count:
        return kept
    return [kept[(2 * index + 1) * len(kept) // (2 * count)] for index in range(count)]


def _time(frame: Any, begin: float) -> float:
    return 0.0 if frame.time is None else max(0.0, float(frame.time) - begin)


def _pixels(frame: Any, job: Job) -> Pixels:
    """As RGB, shrunk and turned."""
    _check_size(frame.width, frame.height, job.param)
    shrink = min(1.0, (job.pixels_max / (frame.width * frame.height)) ** 0.5)
    width, height = (max(1, int(side * shrink)) for side in (frame.width, frame.height))
    small: Any = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    turns = round(float(frame.rotation) / 90) % 4
    return np.ascontiguousarray(np.rot90(small.to_ndarray(), turns))
