"""multipart/form-data on native routes, as each real client sends it (deepinfra-api 3.1).

Strings come bare or JSON-quoted, lists and numbers as JSON, booleans as `true`. A text field keeps
its raw text unless it is a quoted string; a field that takes a list reads a JSON array of what the
list holds, and any other text as one item.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin

import msgspec

from inferd.api.body import fault_of
from inferd.api.cut_texts import Raw
from inferd.api.errors import FieldInvalid
from inferd.api.steps import find
from inferd.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)

PARTS_MAX = 128
HEAD_BYTES_MAX = 4096
CONTENT_TYPE_BYTES_MAX = 512
_BOUNDARY = re.compile(
    rb';\s*boundary=(?:"([^"\r\n]{1,70})"|([0-9A-Za-z\'()+_,./:=?-]{1,70}))\s*(?:;|$)',
    re.IGNORECASE,
)
_DISPOSITION = re.compile(rb"content-disposition:[ \t]*form-data[ \t]*", re.IGNORECASE)
_PARAMETER = re.compile(
    rb';[ \t]*([a-z]+\*?)=(?:"((?:[^"\\]|\\.)*)"[ \t]*|([^;"]*))', re.IGNORECASE
)
"""Matched one after the other, so that no text can be read in two ways: linear time."""
NAME_BYTES_MAX = 256
_TRIED_BYTES = 64 * 1024


def is_multipart(content_type: bytes | None) -> bool:
    """True for a form with parts."""
    return (content_type or b"").strip().lower().startswith(b"multipart/form-data")


FILE_MARK = "\0file:"
"""A text field of a form that was sent as a file holds this and the index of the file."""


class FormFile(NamedTuple):
    """Bytes of a form."""

    name: str
    """As the client says; used for nothing but its ending."""
    content: bytes | memoryview
    """Where it lies in the body."""


def decode_form(body: Raw, content_type: bytes, struct: type[T]) -> T:
    """The form as a Struct; files are refused where text is expected."""
    decoded, files = decode_form_with_files(body, content_type, struct)
    if files:
        found = msgspec.structs.asdict(decoded).items()
        param = next((name for name, value in found if FILE_MARK in str(value)), None)
        raise FieldInvalid(f"{param or 'A field'}: Expected text.", param=param)
    return decoded


def decode_form_with_files(
    body: Raw, content_type: bytes, struct: type[T]
) -> tuple[T, list[FormFile]]:
    """The form as a Struct, and its files: what its text fields' marks stand for.

    A part is a file if it has a file name, or is not text; where a part repeats, or its name ends
    in `[]`, the field is a list. Raises BadRequest, or FieldInvalid with the field's name.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    files: list[FormFile] = []
    values: dict[str, Any] = {}
    for head, content in _parts(body, _boundary(content_type)):
        given, file_name = _names(head)
        name = given.removesuffix("[]")
        field = fields.get(name)
        if field is None:
            continue
        value = _part_value(file_name, content, field.type, files)
        if _is_list(field.type):
            values[name] = _appended(values.get(name), value)
        else:
            values[name] = value
    return _converted(values, struct), files


def _part_value(
    file_name: str | None, content: memoryview, kind: Any, files: list[FormFile]
) -> Any:
    text = _as_text(content) if file_name is None else None
    if text is None:
        files.append(FormFile(file_name or "", content))
        return f"{FILE_MARK}{len(files) - 1}"
    if text == "" and not _is_text(kind):
        # Some clients send a field that was left out as an empty part.
        return None
    return _unmarked(_value(text, kind))


def _unmarked(value: Any) -> Any:
    """Only a file may look like one."""
    if isinstance(value, list):
        return [_unmarked(one) for one in cast("list[Any]", value)]
    return value.replace("\0", "") if isinstance(value, str) else value


def _appended(before: Any, value: Any) -> Any:
    if value is None:
        return before
    more: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [*(before or []), *more]


def _as_text(content: memoryview) -> str | None:
    # What is no text shows it early, mostly: a long file is not copied to find out.
    if b"\0" in bytes(content[:_TRIED_BYTES]) or b"\0" in (raw := bytes(content)):
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _converted(values: dict[str, Any], struct: type[T]) -> T:
    try:
        return msgspec.convert(values, struct, strict=False)
    except msgspec.ValidationError as error:
        # What lies in a file is not sent back.
        texts = {name: value for name, value in values.items() if FILE_MARK not in str(value)}
        raise fault_of(str(error), texts) from None


def _boundary(content_type: bytes) -> bytes:
    found = _BOUNDARY.search(content_type[:CONTENT_TYPE_BYTES_MAX])
    if found is None:
        raise BadRequest("The content type names no boundary.")
    return found[1] or found[2]


def _parts(body: Raw, boundary: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(head, content) of each part; RFC 7578 over RFC 2046, lines end in CRLF."""
    delimiter = b"\r\n--" + boundary
    at = 0
    if not body.startswith(delimiter[2:]):
        # What stands before the first delimiter is nobody's.
        at = _next(body, delimiter, 0) + 2
    at += len(delimiter) - 2
    count = 0
    while not body.startswith(b"--", at):
        count += 1
        if count > PARTS_MAX:
            raise BadRequest(f"A form has at most {PARTS_MAX} parts.")
        end = _next(body, delimiter, at)
        yield _part(body, at, end)
        at = end + len(delimiter)


def _next(body: Raw, delimiter: bytes, at: int) -> int:
    found = find(body, delimiter, at)
    if found < 0:
        raise BadRequest("The body is not a sound multipart form.")
    return found


def _part(body: Raw, start: int, end: int) -> tuple[bytes, memoryview]:
    """One part between two delimiters; its content is not copied."""
    line_end = body.find(b"\r\n", start, min(end, start + HEAD_BYTES_MAX))
    head_end = -1
    if line_end >= 0 and not body[start:line_end].strip(b" \t"):
        head_end = body.find(b"\r\n\r\n", line_end, min(end, line_end + 6 + HEAD_BYTES_MAX))
    if head_end < 0:
        raise BadRequest("A part of the form is not sound.")
    return bytes(body[line_end + 2 : head_end]), memoryview(body)[head_end + 4 : end]


def _names(head: bytes) -> tuple[str, str | None]:
    """Name of the field, and name of the file; None: it is none."""
    for line in head.split(b"\r\n"):
        found = _DISPOSITION.match(line)
        if found is None:
            continue
        parameters = _parameters(line, found.end())
        name = parameters.get(b"name", b"")
        if not 1 <= len(name) <= NAME_BYTES_MAX:
            break
        file_name = parameters.get(b"filename", parameters.get(b"filename*"))
        shown = None if file_name is None else file_name.decode("utf-8", "replace")[:255]
        try:
            return name.decode(), shown
        except UnicodeDecodeError:
            break
    raise BadRequest("A part of the form has no name.")


def _parameters(line: bytes, at: int) -> dict[bytes, bytes]:
    """`; name="value"` after each other; empty if there is anything else."""
    values: dict[bytes, bytes] = {}
    while at < len(line):
        found = _PARAMETER.match(line, at)
        if found is None:
            return {}
        quoted, plain = found[2], found[3]
        value = plain.strip() if quoted is None else quoted.replace(b'\\"', b'"')
        values.setdefault(found[1].lower(), value)
        at = found.end()
    return values


def _value(text: str, kind: Any) -> Any:
    """What a part's text says, as its field reads it."""
    item = _item_of(kind)
    if item is not None:
        items = _array(text, item)
        return _plain_value(text, is_text=_is_text(item)) if items is None else items
    return _plain_value(text, is_text=_is_text(kind))


def _array(text: str, item: Any) -> list[Any] | None:
    """A JSON array of such items; None for every other text, `[1] see below` included."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found: Any = msgspec.json.decode(text.encode())
        return msgspec.convert(found, list[item], strict=False)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return None


def _plain_value(text: str, *, is_text: bool) -> Any:
    if is_text and not text.startswith('"'):
        return text
    try:
        value: Any = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError):
        return text
    return text if is_text and not isinstance(value, str) else value


def _is_text(kind: Any) -> bool:
    return any(option is str for option in _options(kind))


def _is_list(kind: Any) -> bool:
    return any(get_origin(option) in (list, tuple) for option in _options(kind))


def _item_of(kind: Any) -> Any:
    """What the list that a field takes holds; None: it takes none."""
    lists = (option for option in _options(kind) if get_origin(option) in (list, tuple))
    return next((get_args(option)[0] for option in lists), None)


def _options(kind: Any) -> Iterator[Any]:
    """The members of a union, without the bounds on them; of any other type, itself."""
    if get_origin(kind) in (Union, types.UnionType):
        for option in get_args(kind):
            yield from _options(option)
    else:
        yield get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
