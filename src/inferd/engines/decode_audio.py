"""Sound of any format to samples, within limits. Imported in workers only; blocks.

The file is opened in a decoder, a child process under limits of memory and time. The container is
read from bytes that lie there: no protocol, no other file, no network. Only demuxers and codecs of
a list are opened; the duration is limited while it is decoded, since a header may say anything.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, cast

import av
import numpy as np
from av.error import InvalidDataError
from numpy.typing import NDArray

from inferd.clock import SystemClock
from inferd.engines.decoder_pool import decoders
from inferd.engines.decoder_wire import DATA_BYTES_MAX, Job, Made
from inferd.errors import BadRequest
from inferd.tasks.media import Media

Samples = NDArray[np.int16]

DEMUXERS = frozenset(
    "aac aiff amr asf avi caf flac matroska,webm mov,mp4,m4a,3gp,3g2,mj2 mp3 ogg wav w64".split()  # noqa: SIM905 read more easily as one text
)
CODECS = frozenset(
    [
        "aac",
        "alac",
        "amrnb",
        "amrwb",
        "amr_nb",
        "amr_wb",
        "flac",
        "mp2",
        "mp2float",
        "mp3",
        "mp3float",
        "opus",
        "libopus",
        "vorbis",
        "libvorbis",
        "pcm_alaw",
        "pcm_mulaw",
        "pcm_s8",
        "pcm_u8",
        "pcm_s16le",
        "pcm_s16be",
        "pcm_s24le",
        "pcm_s24be",
        "pcm_s32le",
        "pcm_s32be",
        "pcm_f32le",
        "pcm_f32be",
        "pcm_f64le",
        "adpcm_ms",
        "adpcm_ima_wav",
        "wmav1",
        "wmav2",
        "ac3",
        "eac3",
    ]
)
_OPENING = {
    "format_whitelist": ",".join(sorted(DEMUXERS)),
    "codec_whitelist": ",".join(sorted(CODECS)),
    "protocol_whitelist": "none",
}
"""Checked before a demuxer's first byte: a list of files or of URLs would open what it names."""
DECODE_SECONDS_MAX = 120
"""A hundredth of real time is usual."""
RATE_MIN, RATE_MAX = 1000, 384_000
CHANNELS_MAX = 32
UNREADABLE = "The recording cannot be read: it is broken, or of a format that is not read here."


def decode_audio(media: Media, rate: int, seconds_max: float, param: str = "audio") -> Samples:
    """Mono samples of 16 bits at `rate` hertz. Raises BadRequest with a fixed sentence."""
    samples, bytes_max = bytearray(), int(seconds_max * rate) * 2

    def keep(data: bytearray) -> None:
        if len(samples) + len(data) > bytes_max:
            raise ValueError("more samples than can be")
        samples.extend(data)

    job = Job("sound", media, param, DECODE_SECONDS_MAX, rate=rate, seconds_max=seconds_max)
    decoders("sound").run(job, keep)
    return np.frombuffer(samples, np.int16)


def decode_here(job: Job, send: Callable[[bytes], None]) -> Made:
    """In the decoder: the samples as they come. Raises BadRequest, MemoryError."""
    param, held, sent = job.param, bytearray(), False
    try:
        content = job.media.read()
        with av.open(io.BytesIO(content), options=_OPENING, metadata_errors="ignore") as container:
            for piece in _pieces(container, job.rate, job.seconds_max, param):
                held += piece.data
                if len(held) >= DATA_BYTES_MAX:
                    send(bytes(held))
                    held.clear()
                    sent = True
    except (BadRequest, ConnectionError, MemoryError):
        raise
    except Exception as error:
        # The library's errors name addresses and files; none of it is for callers.
        raise BadRequest(UNREADABLE, param=param, detail=repr(error)[:300]) from error
    if not held and not sent:
        raise BadRequest("The recording has no sound in it.", param=param)
    send(bytes(held))
    return Made()


def warm() -> None:
    """In the decoder, before its memory is limited: load all that it needs."""
    av.AudioResampler(format="s16", layout="mono", rate=16_000)


def as_float(samples: Samples) -> NDArray[np.float32]:
    """The same between -1 and 1."""
    return samples.astype(np.float32) / np.float32(32768)


def _pieces(container: Any, rate: int, seconds_max: float, param: str) -> Iterator[Samples]:
    stream = _stream(container, param)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    clock = SystemClock()
    left, deadline = int(seconds_max * rate), clock.seconds() + DECODE_SECONDS_MAX
    for frame in _frames(container, stream):
        if clock.seconds() > deadline:
            raise BadRequest("The recording takes too long to decode.", param=param)
        for resampled in resampler.resample(frame):
            piece = np.ascontiguousarray(cast("Samples", resampled.to_ndarray()).reshape(-1))
            left -= len(piece)
            if left < 0:
                raise BadRequest(
                    f"The recording is longer than {seconds_max:g} seconds.", param=param
                )
            yield piece


def _stream(container: Any, param: str) -> Any:
    """The first sound in it, checked as far as headers go."""
    if str(container.format.name) not in DEMUXERS:
        raise BadRequest(UNREADABLE, param=param)
    if not container.streams.audio:
        raise BadRequest("The recording has no sound in it.", param=param)
    stream = container.streams.audio[0]
    codec = stream.codec_context
    if codec.name not in CODECS or not RATE_MIN <= codec.sample_rate <= RATE_MAX:
        raise BadRequest(UNREADABLE, param=param)
    if codec.channels > CHANNELS_MAX:
        raise BadRequest(f"The recording has over {CHANNELS_MAX} channels.", param=param)
    return stream


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """All frames, then None to flush; what is broken in the middle is left out."""
    broken = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except InvalidDataError:
            broken += 1
            if broken > 100:
                raise
    yield None
