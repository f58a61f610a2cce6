"""Base64 as callers write it, decoded in pieces: other threads run between them."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator

from inferd.api.steps import steps

PIECE_CHARACTERS = 256 * 1024
"""Four characters are three bytes, so pieces end where bytes end."""
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_SKIPPED = b" \t\r\n\v\f\\"
"""A backslash stands before slashes in JSON that was not decoded."""


def decoded(text: str | memoryview) -> list[bytes]:
    """What the text says, in pieces. ValueError for what is no base64 of any spelling."""
    try:
        return list(_strict(text))
    except ValueError:
        return list(_loose(text))


def _pieces(text: str | memoryview) -> Iterator[str | memoryview]:
    for at in steps(0, len(text), PIECE_CHARACTERS):
        yield text[at : at + PIECE_CHARACTERS]


def _strict(text: str | memoryview) -> Iterator[bytes]:
    """Padded, without line ends. binascii.Error, which is a ValueError."""
    ended = False
    for piece in _pieces(text):
        if ended or piece[-3:-2] in ("=", b"="):
            raise ValueError("padding in the middle")
        yield b64decode(piece, validate=True)
        ended = piece[-1] in ("=", ord("="))


def _loose(text: str | memoryview) -> Iterator[bytes]:
    """With line ends, without padding, with the letters of URLs."""
    kept, ended = b"", False
    for piece in _pieces(text):
        raw = piece.encode("ascii") if isinstance(piece, str) else bytes(piece)
        kept += raw.translate(_URL_SAFE, delete=_SKIPPED)
        # The last characters are kept back: padding may be missing behind them.
        whole = max(0, len(kept) - 1) // 4 * 4
        if ended and kept:
            raise ValueError("padding in the middle")
        if whole:
            yield b64decode(kept[:whole], validate=True)
            ended = kept[whole - 1] == ord("=")
            kept = kept[whole:]
    if (ended and kept) or b"=" in kept[:2]:
        raise ValueError("padding in the middle")
    yield b64decode(kept + b"=" * (-len(kept) % 4), validate=True)
