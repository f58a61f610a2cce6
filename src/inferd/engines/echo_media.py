"""Pictures, sound and films of the echo engine: sound files with next to nothing in them."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from collections.abc import Iterator

from inferd.errors import BadRequest
from inferd.tasks.base import CHUNK_BYTES_MAX
from inferd.tasks.media import Media
from inferd.tasks.text_to_image import ImageRequest
from inferd.tasks.text_to_speech import SpeechRequest

RATE = 24_000
WORD_MS = 100
"""How long a word takes to be said."""
FRAME_RATE, FILM_SIDE = 2, 64
_BYTES_PER_SECOND = 32_000


def pieces(data: bytes) -> Iterator[bytes]:
    """In chunks that a worker may send."""
    for at in range(0, len(data), CHUNK_BYTES_MAX):
        yield data[at : at + CHUNK_BYTES_MAX]


def seconds_of(media: Media, param: str) -> float:
    """How long a recording is: exact for WAV, else as if each second had 32,000 bytes."""
    if media.mime not in ("audio/wav", "audio/x-wav"):
        return media.size_bytes / _BYTES_PER_SECOND
    try:
        with wave.open(io.BytesIO(media.read())) as sound:
            return sound.getnframes() / sound.getframerate()
    except (wave.Error, EOFError, ZeroDivisionError) as error:
        raise BadRequest("The recording cannot be read.", param=param) from error


def colour_of(text: str) -> tuple[int, int, int]:
    """The same for the same text."""
    number = zlib.crc32(text.encode("utf-8", "replace"))
    return number & 255, number >> 8 & 255, number >> 16 & 255


def picture(request: ImageRequest, seed: int, share: float = 1) -> bytes:
    """One colour all over, by prompt and seed; it brightens with the share that is drawn."""
    red, green, blue = colour_of(f"{request.prompt} {seed}")
    colour = round(red * share), round(green * share), round(blue * share)
    if request.image_format == "png":
        return _png(request.width, request.height, colour)
    from PIL import Image

    from inferd.engines.encode_image import encode_image

    made = Image.new("RGB", (request.width, request.height), colour)
    return encode_image(made, request.image_format)


def _png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(colour) * width) * height, 1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def silence(request: SpeechRequest, words: int) -> bytes:
    """So many words' time of it, in the format that was asked for."""
    rate = request.sample_rate or RATE
    samples = rate * WORD_MS * words // 1000
    if request.audio_format == "pcm":
        return bytes(2 * samples)
    if request.audio_format == "wav":
        made = io.BytesIO()
        with wave.open(made, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(rate)
            sound.writeframes(bytes(2 * samples))
        return made.getvalue()
    import numpy as np

    from inferd.engines.encode_audio import audio_encoder

    encoder = audio_encoder(request.audio_format, rate, bit_rate=request.bit_rate)
    return encoder.encode(np.zeros(samples, np.float32)) + encoder.finish()


def film(prompt: str, seconds: float) -> tuple[bytes, int]:
    """An MP4 of one colour, and how many frames it has."""
    from PIL import Image

    from inferd.engines.encode_video import encode_video

    frames = max(1, round(seconds * FRAME_RATE))
    frame = Image.new("RGB", (FILM_SIDE, FILM_SIDE), colour_of(prompt))
    return encode_video([frame] * frames, FRAME_RATE), frames
