"""Request bodies: caps before anything is kept, gunzip with a cap, one strict JSON decode."""

from __future__ import annotations

import re
import zlib
from typing import Any, TypeVar

import msgspec

from inferd.api.cut_texts import Raw
from inferd.api.errors import FieldInvalid
from inferd.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType

T = TypeVar("T")

_AT = re.compile(r" - at `\$\.?(.*?)`$")
_JSON_TYPES = (b"application/json", b"text/plain", b"application/x-www-form-urlencoded")
"""curl -d and some clients send JSON under the last two; a body that is not JSON fails anyway."""


MEMBERS_MAX = 16
"""Senders make one, and a few where they concatenate."""
_PACKED_BYTES, _INFLATED_BYTES = 64 * 1024, 1024 * 1024
"""What is unpacked in one go, and to how much at most."""


def check_media_type(content_type: bytes | None) -> None:
    """Refuse what cannot be JSON. No type at all is accepted: some clients send none."""
    if content_type is None:
        return
    name = content_type.split(b";", 1)[0].strip().lower()
    if name in _JSON_TYPES or name.endswith(b"+json"):
        return
    shown = name[:80].decode("latin-1")
    raise UnsupportedMediaType(f"The body must be JSON; content type {shown!r} is not accepted.")


def gunzip(body: Raw, *, bytes_max: int) -> Raw:
    """Inflate one or more gzip members, never beyond `bytes_max`. Blocks, in short pieces."""
    out, rest = bytearray(), memoryview(body)
    for _ in range(MEMBERS_MAX):
        inflater = zlib.decompressobj(wbits=31)
        while not inflater.eof:
            piece, rest = rest[:_PACKED_BYTES], rest[_PACKED_BYTES:]
            if not piece:
                raise BadRequest("The gzip body is cut off.")
            _inflate(inflater, piece, out, bytes_max)
        rest = memoryview(body)[len(body) - len(rest) - len(inflater.unused_data) :]
        if not rest:
            return out
    raise BadRequest(f"A gzip body has at most {MEMBERS_MAX} members.")


def _inflate(inflater: Any, piece: memoryview, out: bytearray, bytes_max: int) -> None:  # no type
    left: bytes | memoryview = piece
    while left:
        try:
            out += inflater.decompress(left, _INFLATED_BYTES)
        except zlib.error:
            raise BadRequest("The body says gzip and is not.") from None
        if len(out) > bytes_max:
            raise PayloadTooLarge(f"The unpacked body is over {bytes_max} bytes.")
        left = b"" if inflater.eof else inflater.unconsumed_tail


def decode(body: Raw, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode and validate. FieldInvalid names the field with a dotted path."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise field_invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None


def field_invalid(error: msgspec.ValidationError) -> FieldInvalid:
    """The decoder's complaint as an error that names the field."""
    sentence, param = locate(str(error))
    return FieldInvalid(sentence, param=param)


def locate(message: str) -> tuple[str, str | None]:
    """Split a decoder's message into a sentence and the dotted path of the field."""
    found = _AT.search(message)
    if not found:
        return message, None
    path = found[1].replace("[", ".").replace("]", "").strip(".") or None
    sentence = message[: found.start()].replace("`", "")
    return (f"{path}: {sentence}." if path else f"{sentence}."), path
