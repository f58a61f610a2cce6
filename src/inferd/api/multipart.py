"""multipart/form-data on native routes, as each real client sends it (deepinfra-api 3.1).

Strings come bare or JSON-quoted, lists and numbers as JSON, booleans as `true`. A text field keeps
its raw text unless it is a quoted string.
"""

from __future__ import annotations

import types
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from inferd.api.body import locate
from inferd.api.errors import FieldInvalid
from inferd.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)

PARTS_MAX = 128


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
    if body.count(b"\n--") > PARTS_MAX:
        raise BadRequest(f"A form has at most {PARTS_MAX} parts.")
    head = b"content-type: " + content_type.replace(b"\r", b"").replace(b"\n", b"")
    message = BytesParser(policy=HTTP).parsebytes(head + b"\r\n\r\n" + body)
    if not message.is_multipart():
        raise BadRequest("The body is not a sound multipart form.")
    texts: dict[str, str] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes):
            raise BadRequest("A part of the form has no name.")
        try:
            texts[name] = content.decode()
        except UnicodeDecodeError:
            raise FieldInvalid(f"{name}: Expected text.", param=name) from None
    return texts


def _value(text: str, *, is_text: bool) -> Any:
    try:
        value: Any = msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        return text
    return text if is_text and not isinstance(value, str) else value


def _is_text(kind: Any) -> bool:
    if get_origin(kind) in (Union, types.UnionType):
        return any(_is_text(option) for option in get_args(kind))
    plain = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    return plain is str
