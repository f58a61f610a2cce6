"""Five clips of a human reader, with what she reads: LibriVox, public domain.

Debian's package pocketsphinx-testdata carries them. Each file is pinned by its hash and fetched
once for each user; where there is no apt the tests that need them are skipped. Also: 44 s of
Dickens that the package moonshine-voice (MIT) carries, and sound in every format.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import wave
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from inferd.catalog.card import ModelCard, ModelFile, PackageSource, Wheel
from inferd.tasks.media import Media
from tests.weights import cache_folder, fetched

RATE = 16_000
PACKAGE = "pocketsphinx-testdata"
FOLDER = "usr/share/pocketsphinx/test/data/librivox"
_BOOK = "sense_and_sensibility_01_austen_64kb"
FILES = {
    f"{_BOOK}-0870.wav": "b0557cf95c974d930577e58e46b7f068c432a6e3afcc286563d88922b2a5315c",
    f"{_BOOK}-0880.wav": "fbec491ef00ee734a67f0ee318e98c51c157b479e1629ff4f4426861ecac0414",
    f"{_BOOK}-0890.wav": "5793ffbdee55fb8bfd284943a6866864c832d9d4accf2661cabd39915c84ee10",
    f"{_BOOK}-0920.wav": "40882414ef4cc51f3ff7a63bad0c8c87e7f595ffeb8209fbf756c8ebc5c28a59",
    f"{_BOOK}-0930.wav": "954adbf0b56ac8a148cbe77b39ca18d76b5f2a1e1f405565bd786ce3e68a68b7",
    "transcription": "4cc29e04a6dcd29242893b3ee20470e50b6ace45f4387bb619e5218145c66f99",
}
_MOONSHINE = Wheel(
    "moonshine-voice==0.1.5",
    "1ed9e0ccf94be4845d69e7fa862dcf4c8b5801a758796966494c694f48184496",
)
TWO_CITIES = """It was the best of times, it was the worst of times, it was the age of wisdom, it
was the age of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the
season of light, it was the season of darkness, it was the spring of hope, it was the winter of
despair, we had everything before us, we had nothing before us, we were all going direct to heaven,
we were all going direct the other way. In short, the period was so far like the present period
that some of its noisiest authorities insisted on its being received, for good or for evil, in the
superlative degree of comparison only."""
FORMATS: dict[str, tuple[str, str, int]] = {
    "wav": ("wav", "pcm_s16le", RATE),
    "mp3": ("mp3", "libmp3lame", 22_050),
    "flac": ("flac", "flac", RATE),
    "ogg": ("ogg", "libopus", 48_000),
    "m4a": ("ipod", "aac", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "mp4": ("mp4", "aac", 44_100),
}
"""Ending → container, codec, hertz. mp4 has a picture track too."""


class Clip:
    """One clip and its words."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text

    @property
    def content(self) -> bytes:
        """The WAV file."""
        return self.path.read_bytes()


@cache
def clips() -> tuple[Clip, ...]:
    """All five, 24.73 s together. Skips the test where they cannot be had."""
    folder = cache_folder() / "librivox"
    if not folder.exists():
        _fetch(folder)
    for name, sha256 in FILES.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256, name
    texts = re.findall(r"<s> (.*?) </s> \((.*?)\)", (folder / "transcription").read_text())
    return tuple(Clip(folder / f"{name}.wav", text) for text, name in texts)


@cache
def two_cities() -> Clip:
    """The beginning of a novel, 44 s: longer than what Whisper hears at once."""
    file = ModelFile(
        role="two_cities.wav",
        file_name="two_cities.wav",
        source=PackageSource((_MOONSHINE,), ("moonshine_voice/assets/two_cities.wav",)),
        sha256="f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
    )
    card = ModelCard(
        name="test/two-cities",
        task="automatic-speech-recognition",
        engine="none",
        licence="MIT",
        summary="A recording.",
        free=True,
        files=(file,),
    )
    return Clip(fetched(card)["two_cities.wav"], TWO_CITIES)


def joined(count: int = 5) -> tuple[bytes, str]:
    """The clips one after another, round and round, with what is said: a longer recording."""
    chosen = [clips()[index % 5] for index in range(count)]
    pause = np.zeros(RATE // 2, np.int16)
    sound = [piece for clip in chosen for piece in (samples(clip.content), pause)]
    return wav(np.concatenate(sound)), " ".join(clip.text for clip in chosen)


def samples(content: bytes) -> NDArray[np.int16]:
    """Of a WAV file."""
    with wave.open(io.BytesIO(content)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def wav(sound: NDArray[np.int16], rate: int = RATE) -> bytes:
    """A WAV file with one channel."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, rate, len(sound), "NONE", ""))
        file.writeframes(sound.tobytes())
    return target.getvalue()


def media(content: bytes) -> Media:
    """As a task takes it."""
    return Media("audio", "audio/wav", len(content), data=content)


def encoded(content: bytes, ending: str) -> bytes:
    """A WAV file in another format."""
    container_name, codec, rate = FORMATS[ending]
    target = io.BytesIO()
    with av.open(target, "w", format=container_name) as container:
        into: Any = container
        film = into.add_stream("mpeg4", rate=5, width=64, height=64) if ending == "mp4" else None
        sound: Any = into.add_stream(codec, rate=rate, layout="mono")
        if film is not None:
            _add_pictures(container, film)
        resampler = av.AudioResampler(format=sound.format, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(samples(content)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        fifo: Any = av.AudioFifo()
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(resampled)
        while piece := fifo.read(sound.frame_size or 1024, partial=True):
            into.mux(sound.encode(piece))
        into.mux(sound.encode(None))
    return target.getvalue()


def _add_pictures(container: Any, film: Any) -> None:
    for index in range(5):
        picture = av.VideoFrame.from_ndarray(
            np.full((64, 64, 3), index * 40, np.uint8), format="rgb24"
        )
        picture.pts, picture.time_base = index, Fraction(1, 5)
        container.mux(film.encode(picture))
    container.mux(film.encode(None))


def word_errors(said: str, meant: str) -> tuple[int, int]:
    """(substitutions, insertions and deletions; words meant), letters alone compared."""
    heard, words = _words(said), _words(meant)
    row = list(range(len(heard) + 1))
    for count, word in enumerate(words, 1):
        before, row[0] = row[0], count
        for index, other in enumerate(heard, 1):
            changed = before + (word != other)
            before = row[index]
            row[index] = min(changed, row[index] + 1, row[index - 1] + 1)
    return row[-1], len(words)


def _words(text: str) -> list[str]:
    plain = re.sub(r"[^a-z' ]", " ", text.lower().replace("mr.", "mister"))
    return plain.split()


def _fetch(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip(f"there is no apt to fetch {PACKAGE} with")
    with TemporaryDirectory(dir=folder.parent) as here:
        download = ["apt-get", "-q", "download", PACKAGE]
        if subprocess.run(download, cwd=here, capture_output=True, timeout=120).returncode:
            # A fresh image has no lists of packages, and may not let this user have any.
            subprocess.run(["apt-get", "-q", "update"], capture_output=True, timeout=300)
            again = subprocess.run(download, cwd=here, capture_output=True, timeout=120)
            if again.returncode:
                pytest.skip(f"apt-get cannot fetch {PACKAGE}: {again.stderr.decode()[-200:]}")
        (package,) = Path(here).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, here], check=True, timeout=60)
        partial = Path(here) / "partial"
        shutil.copytree(Path(here) / FOLDER, partial)
        if not folder.exists():
            partial.rename(folder)
