"""Pictures and recordings that were made to hurt whoever decodes them: one fixed sentence each."""

from __future__ import annotations

import io
import random
import socket
import struct
import tracemalloc
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from inferd.engines.decode_audio import decode_audio
from inferd.engines.decode_image import PIXELS_MAX, SIDE_MAX, decode_image, decode_mask
from inferd.errors import BadRequest
from inferd.tasks.media import Media
from tests.awake import Stopwatch
from tests.hostile.attack import leaks

pytestmark = pytest.mark.engine

SECONDS_MAX = 2.0
GROWTH_MAX = 32 << 20


def image(content: bytes) -> Media:
    return Media("image", "image/png", len(content), data=content)


def audio(content: bytes) -> Media:
    return Media("audio", "audio/wav", len(content), data=content)


def refused(decode: Callable[[], object], seconds_max: float = SECONDS_MAX) -> str:
    """The sentence of a refusal that took neither time nor memory and tells nothing."""
    tracemalloc.start()
    clock = Stopwatch()
    try:
        with pytest.raises(BadRequest) as caught:
            decode()
        taken = clock.seconds()
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < seconds_max
    assert grown < GROWTH_MAX
    assert not leaks(caught.value.message.encode())
    return caught.value.message


def told(decode: Callable[[], object]) -> str:
    """What a refusal says; "" if there is none."""
    try:
        decode()
    except BadRequest as error:
        return error.message
    return ""


def encoded(format_name: str, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(out, format_name, **options)
    return out.getvalue()


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header says so."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def webp_of(width: int, height: int) -> bytes:
    """An animation with a canvas of this size around small frames."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("blue", "red")]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    made = bytearray(out.getvalue())
    at = made.index(b"VP8X") + 12
    made[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(made)


def ico_of(width: int, height: int) -> bytes:
    """An icon whose directory says 16 x 16, and whose picture says something else."""
    inner = png_of(width, height)
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def tiff_of(width: int, height: int) -> bytes:
    """Grey, in one strip that is not there."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 278: height, 279: 9}
    entries = b"".join(struct.pack("<2H2I", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def gif_of(width: int, height: int) -> bytes:
    """A small screen, and a frame of this size on it."""
    out = io.BytesIO()
    Image.new("P", (4, 4)).save(out, "GIF")
    made = bytearray(out.getvalue())
    at = made.index(b",", 13) + 5
    made[at : at + 4] = struct.pack("<HH", width, height)
    return bytes(made)


def bmp_of(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def jpeg_of(width: int, height: int) -> bytes:
    made = bytearray(encoded("JPEG"))
    at = made.index(b"\xff\xc0") + 5
    made[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(made)


class TestPixels:
    @pytest.mark.parametrize(
        "content",
        [
            *(png_of(50_000, 50_000), png_of(2**31 - 1, 2**31 - 1), png_of(SIDE_MAX + 1, 2)),
            *(png_of(10_000, 10_000), png_of(2, 40_000_000)),
            *(jpeg_of(65_000, 65_000), jpeg_of(9000, 9000)),
            *(webp_of(16_383, 16_383), webp_of(9000, 9000)),
            *(ico_of(50_000, 50_000), tiff_of(50_000, 50_000), b"P6 50000 50000 255\n"),
            *(gif_of(65_000, 65_000), bmp_of(50_000, 50_000), bmp_of(2**31 - 1, 2**31 - 1)),
        ],
        ids=lambda content: f"{content[:4]!r}-{len(content)}",
    )
    @pytest.mark.parametrize("decode", [decode_image, decode_mask])
    def test_a_bomb_is_refused_by_its_header(
        self, content: bytes, decode: Callable[[Media], object]
    ) -> None:
        sentence = refused(lambda: decode(image(content)))
        assert f"{SIDE_MAX} a side" in sentence

    @pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
    @pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
    def test_a_single_row_is_refused(self, size: tuple[int, int], name: str) -> None:
        assert "at least 2" in refused(lambda: decode_image(image(encoded(name, size))))

    @pytest.mark.parametrize(
        "name", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "ICO", "PPM"]
    )
    def test_the_smallest_picture_is_read(self, name: str) -> None:
        assert decode_image(image(encoded(name, (2, 2)))).size == (2, 2)

    def test_the_limit_itself_is_read(self) -> None:
        side = int(PIXELS_MAX**0.5)
        out = io.BytesIO()
        Image.new("L", (side, side)).save(out, "PNG")
        assert decode_image(image(out.getvalue())).size == (side, side)


class TestFrames:
    def test_of_ten_thousand_frames_one_is_decoded(self) -> None:
        frames = [Image.new("P", (64, 64), at % 256) for at in range(300)]
        out = io.BytesIO()
        frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=10)
        clock = Stopwatch()
        assert decode_image(image(out.getvalue() * 40)).size == (64, 64)
        assert clock.seconds() < SECONDS_MAX

    def test_of_ten_thousand_pictures_in_one_the_first_is_decoded(self) -> None:
        assert decode_image(image(encoded("JPEG") * 10_000)).size == (64, 48)

    def test_a_picture_with_endless_scans_is_refused(self) -> None:
        out = io.BytesIO()
        Image.new("L", (3000, 3000)).save(out, "JPEG", progressive=True)
        content = out.getvalue()
        scan = content[content.rindex(b"\xff\xda") : -2]
        bomb = content[:-2] + scan * 20_000 + b"\xff\xd9"
        assert "too many scans" in refused(lambda: decode_image(image(bomb)))
        assert decode_image(image(content)).size == (3000, 3000)


FOREIGN = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "jpeg 2000": encoded("JPEG2000"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "pcx": encoded("PCX"),
    "ppm in text": b"P3 2 2 255\n" + b"1 2 3\n" * 4,
    "a list of floats": b"PF\n9 9\n-1.0\n" + bytes(972),
    "pickle": b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93",
    "numpy": b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    "html": b"<html><img src=x></html>",
    "nothing": b"",
    "zeroes": b"\0" * 10_000,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_format_is_refused(name: str) -> None:
    sentence = refused(lambda: decode_image(image(FOREIGN[name])))
    assert sentence == "image is not a sound picture."


@pytest.mark.parametrize(
    "name", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "ICO", "PPM"]
)
def test_a_broken_picture_gets_a_fixed_sentence_or_is_read(name: str) -> None:
    dice = random.Random(name)
    sound = encoded(name)
    for _ in range(150):
        made = bytearray(sound[: dice.randrange(8, len(sound))] if dice.random() < 0.3 else sound)
        for _ in range(dice.randrange(1, 12)):
            made[dice.randrange(len(made))] = dice.randrange(256)
        said = told(lambda made=made: decode_image(image(bytes(made))))
        assert said == "" or said.startswith("image is ")
        assert not leaks(said.encode())


def wav(rate: int = 16_000, channels: int = 1, seconds: float = 0.2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\1\0" * int(16_000 * seconds) * channels)
    made = bytearray(out.getvalue())
    made[24:28] = struct.pack("<I", rate)
    return bytes(made)


def hears(content: bytes, seconds_max: float = 60) -> int:
    return len(decode_audio(audio(content), 16_000, seconds_max))


class TestSound:
    def test_a_plain_recording_is_read(self) -> None:
        assert hears(wav()) == 3200

    @pytest.mark.parametrize("rate", [0, 1, 999, 384_001, 1_000_000_000, 2**32 - 1])
    def test_an_absurd_sample_rate_is_refused(self, rate: int) -> None:
        refused(lambda: hears(wav(rate)))

    def test_too_many_channels_are_refused(self) -> None:
        refused(lambda: hears(wav(channels=200)))

    def test_a_long_recording_is_refused_while_it_is_decoded(self) -> None:
        content = wav(seconds=100)
        assert "longer than 60 seconds" in refused(lambda: hears(content))

    def test_a_slow_rate_that_would_grow_is_refused(self) -> None:
        content = wav(1000, seconds=120)
        assert len(content) < 4 << 20
        assert "longer than 60 seconds" in refused(lambda: hears(content))

    @pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
    def test_what_is_no_recording_is_refused(self, content: bytes) -> None:
        refused(lambda: hears(content))

    def test_a_broken_recording_gets_a_fixed_sentence_or_is_read(self) -> None:
        dice = random.Random(1)
        sound = wav(seconds=0.5)
        for _ in range(150):
            made = bytearray(sound)
            for _ in range(dice.randrange(1, 8)):
                made[dice.randrange(60)] = dice.randrange(256)
            said = told(lambda made=made: hears(bytes(made)))
            assert said == "" or said.startswith("The recording ")
            assert not leaks(said.encode())


ID3 = b"ID3\x04\0\0\0\0\0\x0a" + b"\0" * 10
"""A tag that is skipped before the format is guessed."""


class TestLists:
    """Containers that name other files or URLs are never opened."""

    @pytest.mark.parametrize("before", [b"", ID3])
    def test_a_list_of_files_opens_none(
        self, before: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "secret.wav").write_bytes(wav())
        monkeypatch.chdir(tmp_path)
        for listed in ("secret.wav", f"file:{tmp_path}/secret.wav"):
            refused(
                lambda listed=listed: hears(
                    before + f"ffconcat version 1.0\nfile {listed}\n".encode()
                )
            )

    @pytest.mark.parametrize("before", [b"", ID3])
    @pytest.mark.parametrize(
        "text",
        [
            "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
            "ffconcat version 1.0\nfile {url}\n",
            "v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
            '<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL></MPD>',
        ],
        ids=["hls", "concat", "sdp", "dash"],
    )
    def test_a_list_of_urls_reaches_nobody(self, before: bytes, text: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(0)
            port = listener.getsockname()[1]
            url = f"http://127.0.0.1:{port}/a.ts"
            refused(lambda: hears(before + text.format(url=url).encode()))
            with pytest.raises(BlockingIOError):
                listener.accept()
