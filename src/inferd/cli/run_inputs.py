"""What the words after `inferd run MODEL` hold: text, a file's text, a file as it is."""

from __future__ import annotations

import sys
from base64 import b64encode
from pathlib import Path

from inferd.errors import BadRequest


def text_of(given: str) -> str:
    """The word itself, the text of @path, or standard input for -."""
    if given == "-":
        return sys.stdin.read()
    if not given.startswith("@"):
        return given
    return as_text(file_of(given), given)


def as_text(content: bytes, given: str) -> str:
    """What a file says. BadRequest where it is no text."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"{given[1:]} cannot be read as text: {error}.") from error


def media_of(given: str) -> str:
    """A file as data URL, or a URL as it is."""
    if given.startswith(("http://", "https://", "data:")):
        return given
    return data_url(file_of(given))


def data_url(content: bytes, mime: str = "") -> str:
    """What a JSON body can hold of a file."""
    return f"data:{mime};base64,{b64encode(content).decode()}"


def file_of(given: str) -> bytes:
    """The content of @path. BadRequest where it cannot be read."""
    path = Path(given.removeprefix("@")).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.") from error
