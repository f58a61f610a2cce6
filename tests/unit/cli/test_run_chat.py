"""What `inferd run` makes of the words after a chat model's name."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from inferd.cli.run_chat import chat_content
from inferd.errors import BadRequest
from inferd.tasks.media import MediaKind
from tests.gateway import echo_card
from tests.recordings import RATE, wav
from tests.writing import page, png

PNG = png(page([["Hello"]]))
WAV = wav(np.zeros(RATE // 10, np.int16))
MP4 = b"\x00\x00\x00\x20ftypisom" + bytes(24)
OGG = b"OggS" + bytes(60)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {"cat.png": PNG, "say.wav": WAV, "film.mp4": MP4, "say.ogg": OGG, "bin": b"\xff\0"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "prompt.txt").write_text("BMWs are cars. What is a café?")
    monkeypatch.chdir(tmp_path)


def content(*inputs: str, takes: tuple[MediaKind, ...] = ("image", "audio", "video")) -> object:
    return chat_content(echo_card(modalities=takes), list(inputs))


def url(mime: str, data: bytes) -> dict[str, str]:
    return {"url": f"data:{mime};base64,{base64.b64encode(data).decode()}"}


def sound(kind: str, data: bytes) -> dict[str, object]:
    told = {"data": base64.b64encode(data).decode(), "format": kind}
    return {"type": "input_audio", "input_audio": told}


def test_files_become_the_parts_that_the_model_takes_in_their_order() -> None:
    assert content("What?", "@cat.png", "@say.wav", "@film.mp4", "@prompt.txt") == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": url("image/png", PNG)},
        sound("wav", WAV),
        {"type": "video_url", "video_url": url("video/mp4", MP4)},
        {"type": "text", "text": "BMWs are cars. What is a café?"},
    ]
    assert content("@cat.png") == [{"type": "image_url", "image_url": url("image/png", PNG)}]


def test_what_may_be_film_or_sound_is_what_its_name_says_and_the_model_takes() -> None:
    assert content("@say.ogg") == [sound("ogg", OGG)]
    assert content("@film.mp4", takes=("audio",)) == [sound("mp4", MP4)]


def test_text_alone_stays_text() -> None:
    assert content("Why?") == "Why?"
    assert content("@prompt.txt", takes=()) == "BMWs are cars. What is a café?"
    assert content("Say this:", "@prompt.txt") == "Say this:\nBMWs are cars. What is a café?"


@pytest.mark.parametrize(
    ("inputs", "takes", "sentence"),
    [
        (("What", "is", "this"), (), "one prompt"),
        (("@cat.png",), (), "cat.png is image/png; test/echo takes nothing but text"),
        (("@say.wav",), ("image", "video"), "audio/wav; test/echo takes pictures and films"),
        (("@bin",), ("image",), "bin cannot be read as text"),
        (("@nowhere.png",), ("image",), "nowhere.png cannot be read: No such file"),
    ],
)
def test_refused(inputs: tuple[str, ...], takes: tuple[MediaKind, ...], sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        content(*inputs, takes=takes)
