"""multipart/form-data on native routes, as each real client sends it (deepinfra-api 3.1).

Strings come bare or JSON-quoted, lists and numbers as JSON, booleans as `true`. A text field keeps
its raw text unless it is a quoted string.
"""

from __future__ import annotations

import re
import types
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from inferd.api.body import locate
from inferd.api.errors import FieldInvalid
from inferd.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)

PARTS_MAX = 128
HEAD_BYTES_MAX = 4096
CONTENT_TYPE_BYTES_MAX = 512
_BOUNDARY = re.compile(
    rb';\s*boundary=(?:"([^"\r\n]{1,70})"|([0-9A-Za-z\'()+_,./:=?-]{1,70}))\s*(?:;|$)',
    re.IGNORECASE,
)
_DISPOSITION = re.compile(
    rb"content-disposition:[ \t]*form-data(?:[ \t]*;[ \t]*(?!name=)[a-z]+\*?="
    rb'(?:"[^"\r\n]*"|[^;"\r\n]*))*[ \t]*;[ \t]*name=(?:"([^"\r\n]{1,256})"|([^;"\s]{1,256}))'
    rb'(?:[ \t]*;[ \t]*[a-z]+\*?=(?:"[^"\r\n]*"|[^;"\r\n]*))*[ \t]*$',
    re.IGNORECASE,
)


def is_multipart(content_type: bytes | None) -> bool:
    """True for a form with parts."""
    return (content_type or b"").strip().lower().startswith(b"multipart/form-data")


def decode_form(body: bytes, content_type: bytes, struct: type[T]) -> T:
    """The form as a Struct. Raises BadRequest, or FieldInvalid with the field's name."""
    texts = _texts(body, content_type)
    strings = {field.name for field in msgspec.structs.fields(struct) if _is_text(field.type)}
    values = {name: _value(text, is_text=name in strings) for name, text in texts.items()}
    try:
        return msgspec.convert(values, struct, strict=False)
    except msgspec.ValidationError as error:
        sentence, param = locate(str(error))
        raise FieldInvalid(sentence, param=param) from None


def _texts(body: bytes, content_type: bytes) -> dict[str, str]:
    texts: dict[str, str] = {}
    for head, content in _parts(body, _boundary(content_type)):
        name = _name(head)
        try:
            texts[name] = content.decode()
        except UnicodeDecodeError:
            raise FieldInvalid(f"{name}: Expected text.", param=name) from None
    return texts


def _boundary(content_type: bytes) -> bytes:
    found = _BOUNDARY.search(content_type[:CONTENT_TYPE_BYTES_MAX])
    if found is None:
        raise BadRequest("The content type names no boundary.")
    return found[1] or found[2]


def _parts(body: bytes, boundary: bytes) -> list[tuple[bytes, bytes]]:
    """(head, content) of each part; RFC 7578 over RFC 2046, lines end in CRLF."""
    delimiter = b"\r\n--" + boundary
    pieces = (b"\r\n" + body).split(delimiter, PARTS_MAX + 2)
    if len(pieces) > PARTS_MAX + 2:
        raise BadRequest(f"A form has at most {PARTS_MAX} parts.")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise BadRequest("The body is not a sound multipart form.")
    parts: list[tuple[bytes, bytes]] = []
    for piece in pieces[1:-1]:
        line, _, rest = piece.partition(b"\r\n")
        head, found, content = rest.partition(b"\r\n\r\n")
        if line.strip(b" \t") or not found or len(head) > HEAD_BYTES_MAX:
            raise BadRequest("A part of the form is not sound.")
        parts.append((head, content))
    return parts


def _name(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        found = _DISPOSITION.match(line)
        if found is not None:
            try:
                return (found[1] or found[2]).decode()
            except UnicodeDecodeError:
                break
    raise BadRequest("A part of the form has no name.")


def _value(text: str, *, is_text: bool) -> Any:
    try:
        value: Any = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError):
        return text
    return text if is_text and not isinstance(value, str) else value


def _is_text(kind: Any) -> bool:
    if get_origin(kind) in (Union, types.UnionType):
        return any(_is_text(option) for option in get_args(kind))
    plain = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    return plain is str
