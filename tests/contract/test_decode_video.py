"""Films in the decoder: evenly spread pictures, within the limits of length, size and count."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from inferd.engines.decode_video import Wish, decode_video
from inferd.errors import BadRequest
from tests.films import film, film_media
from tests.recordings import RATE, encoded, wav
from tests.writing import page, png

COLOURS = ("red", "lime", "blue", "white")
WISH = Wish(frames=4, pixels_max=10_000, seconds_max=30)


def colours(side: int = 160) -> list[Image.Image]:
    return [Image.new("RGB", (side, side), name) for name in COLOURS]


def near(picture: Image.Image, name: str) -> bool:
    wanted = Image.new("RGB", (1, 1), name).getpixel((0, 0))
    found = picture.getpixel((8, 8))
    assert isinstance(wanted, tuple)
    assert isinstance(found, tuple)
    return all(abs(a - b) < 30 for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("live", [False, True])
def test_each_part_of_a_film_is_seen_once_in_its_order(live: bool) -> None:
    """Whether it says how long it is or not."""
    seen = decode_video(film_media(film(colours(), 8, live=live)), WISH)
    assert len(seen.pictures) == 4
    for picture, name in zip(seen.pictures, COLOURS, strict=True):
        assert near(picture, name), name
        assert picture.size == (100, 100)
    assert list(seen.seconds) == sorted(seen.seconds)
    assert 0 <= seen.seconds[0] < 2 < 6 <= seen.seconds[-1] < 8
    assert not seen.sound


def test_a_short_film_gives_what_it_has() -> None:
    seen = decode_video(film_media(film(colours(), 0.4)), WISH)
    assert 1 <= len(seen.pictures) <= 2


def test_sound_is_told_and_a_recording_has_no_pictures() -> None:
    silence = wav(np.zeros(RATE, np.int16))
    assert decode_video(film_media(film(colours(), 1, silence)), WISH).sound
    heard = decode_video(film_media(encoded(silence, "m4a")), WISH)
    assert (heard.pictures, heard.sound) == ((), True)


FILM = film(colours(), 2)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (film(colours(32), 31), "longer than 30 seconds"),
        (film(colours(32), 31, live=True), "longer than 30 seconds"),
        (FILM[: len(FILM) // 2], "cannot be read"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(100), "cannot be read"),
        (png(page([["Hello"]])), "cannot be read"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "cannot be read"),
        (film([Image.new("RGB", (4096, 2304))], 0.2), "4096 x 2304 pixels"),
    ],
)
def test_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence) as refused:
        decode_video(film_media(content), WISH)
    assert refused.value.param == "video"
