"""What kind of media some bytes are, from their beginning. Decodes nothing, trusts no claim."""

from __future__ import annotations

import re
from typing import NamedTuple

from inferd.tasks.media import MediaKind

HEAD_BYTES = 64


class Sniffed(NamedTuple):
    """What it looks like."""

    mime: str
    kinds: tuple[MediaKind, ...]
    """What it may be used as: a film may also be listened to."""


_IMAGE: tuple[MediaKind, ...] = ("image",)
_AUDIO: tuple[MediaKind, ...] = ("audio",)
_FILM: tuple[MediaKind, ...] = ("video", "audio")

_STARTS: tuple[tuple[bytes, str, tuple[MediaKind, ...]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png", _IMAGE),
    (b"\xff\xd8\xff", "image/jpeg", _IMAGE),
    (b"GIF87a", "image/gif", _IMAGE),
    (b"GIF89a", "image/gif", _IMAGE),
    (b"BM", "image/bmp", _IMAGE),
    (b"II*\0", "image/tiff", _IMAGE),
    (b"MM\0*", "image/tiff", _IMAGE),
    (b"ID3", "audio/mpeg", _AUDIO),
    (b"fLaC", "audio/flac", _AUDIO),
    (b"OggS", "audio/ogg", _FILM),
    (b"#!AMR", "audio/amr", _AUDIO),
    (b"caff", "audio/x-caf", _AUDIO),
    (b"\x1aE\xdf\xa3", "video/webm", _FILM),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf", _FILM),
)
_RIFF: dict[bytes, tuple[str, tuple[MediaKind, ...]]] = {
    b"WEBP": ("image/webp", _IMAGE),
    b"WAVE": ("audio/wav", _AUDIO),
    b"AVI ": ("video/x-msvideo", _FILM),
}
_REFUSED_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"jp2 ", b"crx ")
"""Pictures in an MP4 box that are not read: HEIC, JPEG 2000, raw of cameras."""
_PATTERNS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    # The binary ones; those in text are decoded far too slowly.
    (re.compile(rb"P[456][ \t\r\n]"), "image/x-portable-anymap"),
    (re.compile(rb"\x00\x00\x01\x00[\x01-\xff]\x00"), "image/x-icon"),
)


def sniff(head: bytes) -> Sniffed | None:
    """The kind of media that begins so; None for everything else, text and SVG included."""
    if plain := _by_start(head):
        return plain
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] in _RIFF:
        return Sniffed(*_RIFF[head[8:12]])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Sniffed("audio/aiff", _AUDIO)
    if head[4:8] == b"ftyp":
        return _boxed(head)
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return _frame_sync(head)
    return None


def _by_start(head: bytes) -> Sniffed | None:
    for start, mime, kinds in _STARTS:
        if head.startswith(start):
            return Sniffed(mime, kinds)
    for pattern, mime in _PATTERNS:
        if pattern.match(head):
            return Sniffed(mime, _IMAGE)
    return None


def _boxed(head: bytes) -> Sniffed | None:
    """An MP4, or a picture in its box: AVIF may come under a brand that it shares with HEIC."""
    brand = head[8:12]
    brands = {head[at : at + 4] for at in range(8, len(head) - 3, 4)}
    if brand in (b"avif", b"avis") or (brand in (b"mif1", b"msf1") and b"avif" in brands):
        return Sniffed("image/avif", _IMAGE)
    return None if brand in _REFUSED_BRANDS else Sniffed("video/mp4", _FILM)


def _frame_sync(head: bytes) -> Sniffed | None:
    """An MPEG audio frame without a tag before it; layer 0 is AAC in ADTS."""
    if head[1] & 0xF6 == 0xF0:
        return Sniffed("audio/aac", _AUDIO)
    layer, rate = head[1] >> 1 & 3, head[2] >> 4
    return Sniffed("audio/mpeg", _AUDIO) if layer and rate not in (0, 15) else None
