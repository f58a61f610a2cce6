"""Where `inferd run` writes sound, pictures and films: checked before anything is computed."""

from __future__ import annotations

import os
import sys
from base64 import b64decode
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, NamedTuple

import typer

from inferd.clock import SystemClock
from inferd.errors import BadRequest
from inferd.tasks.text_to_image import ImageFormat
from inferd.tasks.text_to_speech import AudioFormat

SOUNDS: dict[str, AudioFormat] = {
    ".wav": "wav",
    ".mp3": "mp3",
    ".ogg": "opus",
    ".opus": "opus",
    ".flac": "flac",
    ".pcm": "pcm",
}
PICTURES: dict[str, ImageFormat] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
}
FILMS = {".mp4": "mp4"}
_WAV_HEAD = 44


class Target(NamedTuple):
    """A file that can be written, and its format."""

    path: Path
    file_format: str


def target(wanted: Path | None, default: str, formats: Mapping[str, str]) -> Target:
    """What -o says, or the default. Raises BadRequest for what cannot be written or is unknown."""
    path = (wanted or Path(default)).expanduser()
    ending = path.suffix.lower() or Path(default).suffix
    if ending not in formats:
        raise BadRequest(
            f"{path.name}: this model writes {', '.join(formats)}; name a file that ends so."
        )
    if path.is_dir():
        raise BadRequest(f"{path} is a folder; -o names a file.")
    if not path.parent.is_dir():
        raise BadRequest(f"The folder {path.parent} does not exist.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadRequest(f"{path} cannot be written.")
    return Target(path, formats[ending])


def picture_target(wanted: Path | None, default: str) -> Target:
    """For a picture: other formats than PNG need Pillow."""
    found = target(wanted, default, PICTURES)
    if found.file_format != "png" and find_spec("PIL") is None:
        raise BadRequest(f"{found.path.name} needs Pillow, which is not installed; .png does not.")
    return found


def save(data_url: str, to: Target) -> None:
    """Write what a data URL holds, a picture in the format of its file."""
    content = b64decode(data_url.partition(",")[2])
    if to.file_format in ("jpeg", "webp"):
        content = _converted(content, "jpeg" if to.file_format == "jpeg" else "webp")
    _written(to.path, content)
    told(to.path)


def told(path: Path) -> None:
    """Say what was written."""
    typer.echo(f"{path} ({path.stat().st_size} bytes)")


class Sound:
    """A file that grows as it is spoken, with a line of progress on standard error."""

    def __init__(self, to: Target) -> None:
        self._to = to
        self._clock = SystemClock()
        self._began = self._clock.seconds()
        self._file: BinaryIO | None = None
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """The next bytes. The file is opened with the first of them."""
        if not chunk:
            return
        try:
            if self._file is None:
                self._file = self._to.path.open("wb")
            self._file.write(chunk)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._to.path, error) from error
        self._size += len(chunk)
        seconds = self._clock.seconds() - self._began
        sys.stderr.write(f"\r{self._size:,} bytes, {seconds:.1f} s")
        sys.stderr.flush()

    def finish(self) -> None:
        """All was said."""
        if self._file is None:
            return
        sys.stderr.write("\n")
        if self._to.file_format == "wav" and self._to.path.is_file():
            # The header came before anybody knew how long it would be.
            for at, size in ((4, self._size - 8), (40, self._size - _WAV_HEAD)):
                self._file.seek(at)
                self._file.write(size.to_bytes(4, "little"))
        self._file.close()
        told(self._to.path)


def _converted(content: bytes, image_format: ImageFormat) -> bytes:
    # Only here: a command that writes a PNG does without Pillow.
    import io

    from PIL import Image

    from inferd.engines.encode_image import encode_image

    return encode_image(Image.open(io.BytesIO(content)), image_format)


def _written(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> BadRequest:
    return BadRequest(f"{path} cannot be written: {error.strerror}.")
