"""Request bodies: caps before anything is kept, gunzip with a cap, one strict JSON decode."""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from typing import Any, TypeVar, cast

import msgspec

from inferd.api.cut_texts import Raw
from inferd.api.errors import FieldInvalid
from inferd.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType

T = TypeVar("T")

_AT = re.compile(r" - at `\$\.?(.*?)`$")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_EXPECTED = re.compile(r"Expected `(\w+)(?: \| null)?`")
_KINDS = {
    "str": "string",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "array": "list",
    "object": "dict",
}
"""A decoder's words, and those of FastAPI's errors."""
_SHOWN_BODY_BYTES, _SHOWN_VALUE_BYTES = 64 * 1024, 4096
"""Longer bodies are not decoded a second time, longer values not sent back."""
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
        raise field_invalid(error, body) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("The body is not valid JSON.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None


def field_invalid(error: msgspec.ValidationError, body: Raw | None = None) -> FieldInvalid:
    """The decoder's complaint as an error that names the field, and shows what is in its place."""
    given: object = None
    if body is not None and len(body) <= _SHOWN_BODY_BYTES:
        # What the field's own type was refused for, such as 1e400, fits no value at all.
        with suppress(msgspec.MsgspecError, RecursionError):
            given = msgspec.json.decode(body)
    return fault_of(str(error), given)


def fault_of(message: str, body: object = None) -> FieldInvalid:
    """A decoder's message as an error; `body`: what it complains of, as plain values."""
    found = _AT.search(message)
    steps = _steps(found[1]) if found else []
    sentence = message[: found.start()] if found else message
    given = _value_at(body, steps)
    if missing := _MISSING.fullmatch(sentence):
        path = ".".join([*steps, missing[1]])
        return FieldInvalid(
            f"{path}: Field required.",
            param=path,
            fault="missing",
            said="Field required",
            given=given,
        )
    said, path = sentence.replace("`", ""), ".".join(steps) or None
    told = f"{path}: {said}." if path else f"{said}."
    return FieldInvalid(told, param=path, fault=_fault(sentence), said=said, given=given)


def _steps(path: str) -> list[str]:
    """`messages[0].role` step by step; a key that the decoder does not name is `...`."""
    return [step for step in re.split(r"[\[\]]|(?<!\.)\.(?!\.)", path) if step]


def _fault(sentence: str) -> str:
    found = _EXPECTED.match(sentence)
    if found is None:
        return "value_error"
    if not sentence[found.end() :].startswith(", got"):
        return "value_error"
    return f"{_KINDS[found[1]]}_type" if found[1] in _KINDS else "value_error"


def _value_at(body: object, steps: list[str]) -> object:
    """What stands there; null where it cannot be told, or is long."""
    found: Any = body  # whatever the caller sent
    for step in steps:
        if isinstance(found, dict) and step in found:
            found = cast("dict[str, Any]", found)[step]
        elif (
            isinstance(found, list) and step.isdigit() and int(step) < len(cast("list[Any]", found))
        ):
            found = cast("list[Any]", found)[int(step)]
        else:
            return None
    return found if len(msgspec.json.encode(found)) <= _SHOWN_VALUE_BYTES else None
