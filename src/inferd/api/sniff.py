"""What kind of media some bytes are, from their beginning. Decodes nothing, trusts no claim."""

from __future__ import annotations

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
_REFUSED_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"jp2 ", b"crx ")
"""Pictures in an MP4 box: their decoders are large, and have had their holes."""


def sniff(head: bytes) -> Sniffed | None:
    """The kind of media that begins so; None for everything else, text and SVG included."""
    for start, mime, kinds in _STARTS:
        if head.startswith(start):
            return Sniffed(mime, kinds)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] in _RIFF:
        return Sniffed(*_RIFF[head[8:12]])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Sniffed("audio/aiff", _AUDIO)
    if head[4:8] == b"ftyp" and head[8:12] not in _REFUSED_BRANDS:
        return Sniffed("video/mp4", _FILM)
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return _frame_sync(head)
    return None


def _frame_sync(head: bytes) -> Sniffed | None:
    """An MPEG audio frame without a tag before it; layer 0 is AAC in ADTS."""
    if head[1] & 0xF6 == 0xF0:
        return Sniffed("audio/aac", _AUDIO)
    layer, rate = head[1] >> 1 & 3, head[2] >> 4
    return Sniffed("audio/mpeg", _AUDIO) if layer and rate not in (0, 15) else None
