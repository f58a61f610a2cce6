"""Bodies that are broken below the level of fields: JSON, text, compression, forms, media types."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.hostile.attack import (
    BASES,
    CHAT,
    COMPLETIONS,
    COUNT,
    DETOKENIZE,
    JSON,
    MESSAGES,
    NATIVE,
    RESPONSES,
    TOKENIZE,
    Attack,
    attack,
    refusal_status,
    with_text,
)

TEN_MB = 10_000_000


def _deep(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


NO_OBJECTS = (
    "null",
    "true",
    "number",
    "text",
    "list",
    "two objects",
    "deep lists",
    "deep and cut off",
)
"""They begin like JSON, and what begins there is not what the schema wants."""


def _json() -> Iterator[Attack]:
    broken: dict[str, bytes] = {
        "empty": b"",
        "spaces": b" " * 1_000_000,
        "null": b"null",
        "true": b"true",
        "number": b"0",
        "text": b'"x"',
        "list": b"[]",
        "cut off": b'{"model": "x", "messages": [{"role": "us',
        "two objects": b"{}{}",
        "comment": b'{"model": "x" /* y */}',
        "trailing comma": b'{"model": "x",}',
        "single quotes": b"{'model': 'x'}",
        "no quotes": b"{model: x}",
        "BOM": b"\xef\xbb\xbf{}",
        "UTF-16": '{"model": "x"}'.encode("utf-16"),
        "UTF-32": '{"model": "x"}'.encode("utf-32"),
        "NUL": b"\x00",
        "NUL in front": b'\x00{"model": "x"}',
        "form": b"model=x&messages=y",
        "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "pickle": b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
        "YAML": b"!!python/object/apply:os.system ['true']",
        "deep lists": _deep(10_000).encode(),
        "deep objects": (b'{"a":' * 10_000) + b"1" + b"}" * 10_000,
        "deep and cut off": b"[" * 1_000_000,
        "objects that never close": b'{"a":' * 1_000_000,
    }
    for path in (CHAT, COMPLETIONS, RESPONSES, MESSAGES, COUNT, TOKENIZE, DETOKENIZE, NATIVE):
        for name, body in broken.items():
            status = refusal_status(path) if name in NO_OBJECTS else 400
            yield attack(f"{path} {name}", path, body, status)


def _inside() -> Iterator[Attack]:
    """Hostile JSON in a place that the schema leaves open, or ignores."""
    for name, text in {
        "deep": _deep(10_000),
        "deep objects": _deep(10_000, '{"a":', "}").replace(":}", ":1}", 1),
        "1e400": "1e400",
        "invalid UTF-8": '"@@"',
        "lone surrogate": r'"\ud800"',
        "reversed surrogates": r'"\udc00\ud800"',
        "bad escape": r'"\x41"',
        "short escape": r'"\u12"',
        "raw line break": '"a\nb"',
        "raw NUL": '"a\x00b"',
        "cut off": '"',
    }.items():
        said = f'[{{"role": "user", "content": {text}}}]'
        for field, value in (("ignored", text), ("messages", said)):
            raw = with_text(CHAT, field, value).replace(b"@@", b"\xff\xfe")
            skipped = field == "ignored" and name in ("1e400", "invalid UTF-8")
            yield attack(f"{field} {name}", CHAT, raw, 200 if skipped else 400)
    base = msgspec.json.encode(BASES[CHAT])
    yield attack("a field twice, the last one wrong", CHAT, base[:-1] + b', "n": 1, "n": 0}', 400)
    yield attack("a field twice, both good", CHAT, base[:-1] + b', "max_tokens": 1}', 200)
    yield attack(
        "100 000 fields", CHAT, {**BASES[CHAT], **{f"f{i}": i for i in range(100_000)}}, 200
    )
    one = {**BASES[CHAT], "messages": [{"role": "user", "content": "a\u0000b"}]}
    yield attack("NUL in text", CHAT, one, 200)
    yield attack("a name of 9 MB", CHAT, {**BASES[CHAT], "x" * 9_000_000: 1}, 200)


def _large() -> Iterator[Attack]:
    text = {**BASES[CHAT], "messages": [{"role": "user", "content": "a" * (TEN_MB - 1000)}]}
    yield attack("nearly 10 MB of text", CHAT, text, 400, echo=200, seconds_max=8.0)
    words = {**BASES[CHAT], "messages": [{"role": "user", "content": "a b " * 2_000_000}]}
    yield attack("4 million words", CHAT, words, 400, seconds_max=8.0)
    for path in (CHAT, MESSAGES, NATIVE):
        yield attack(f"{path} over 10 MB", path, b" " * (TEN_MB + 1), 413)
    many = {**BASES[CHAT], "messages": [{"role": "user", "content": "a"}] * 4097}
    yield attack("4 097 messages", CHAT, many, 400)
    many = {**BASES[CHAT], "messages": [{"role": "user", "content": "a"}] * 250_000}
    yield attack("250 000 messages", CHAT, many, 400)
    parts = [{"type": "text", "text": "a"}] * 4097
    yield attack(
        "4 097 parts", CHAT, {**BASES[CHAT], "messages": [{"role": "user", "content": parts}]}
    )


def _gzip() -> Iterator[Attack]:
    packed = {**JSON, "content-encoding": "gzip"}
    sound = gzip.compress(msgspec.json.encode(BASES[CHAT]))
    bomb = gzip.compress(b" " * 200_000_000, compresslevel=9)
    yield attack("gzip bomb", CHAT, bomb, 413, headers=packed)
    yield attack("gzip bomb in a gzip", CHAT, gzip.compress(bomb), 400, headers=packed)
    yield attack("gzip cut off", CHAT, sound[:-9], 400, headers=packed)
    yield attack("gzip with a wrong sum", CHAT, sound[:-8] + b"\0" * 8, 400, headers=packed)
    yield attack("gzip and rubbish", CHAT, sound + b"rubbish", 400, headers=packed)
    yield attack("no gzip", CHAT, b"{}", 400, headers=packed)
    yield attack("empty gzip", CHAT, b"", 400, headers=packed)
    members = gzip.compress(b"") * 100_000
    yield attack("100 000 empty members", CHAT, members, 400, headers=packed)
    for name, kind in {
        "deflate": "deflate",
        "br": "br",
        "zstd": "zstd",
        "gzip twice": "gzip, gzip",
        "chunked": "chunked",
        "long": "g" * 10_000,
    }.items():
        body = zlib.compress(b"{}")
        headers = {**JSON, "content-encoding": kind}
        yield attack(f"encoding {name}", CHAT, body, 415, headers=headers)


MEDIA = (
    "application/x-pickle",
    "application/octet-stream",
    "application/vnd.bentoml+pickle",
    "application/x-python-serialize",
    "application/xml",
    "text/html",
    "image/png",
    "application/msgpack",
    "application/x-npy",
    "multipart/mixed; boundary=x",
    "application/json-seq",
    "application/jsonp",
    "json",
    "*/*",
    "a" * 8000,
    "application/x-yaml; charset=utf-7",
)


def _media() -> Iterator[Attack]:
    for kind in MEDIA:
        for path in (CHAT, MESSAGES, NATIVE):
            body = msgspec.json.encode(BASES[path])
            headers = {"content-type": kind}
            yield attack(f"{path} {kind[:40]}", path, body, 415, headers=headers)
    form = {"content-type": "multipart/form-data; boundary=x"}
    yield attack("a form where none is taken", CHAT, b"--x--\r\n", 415, headers=form)
    for name, kind in {
        "utf-7": "application/json; charset=utf-7",
        "a lone parameter": "application/json;",
        "capitals": "APPLICATION/JSON",
    }.items():
        body = msgspec.json.encode(BASES[CHAT])
        yield attack(f"JSON said {name}", CHAT, body, 200, headers={"content-type": kind})


def _part(name: str, value: str = "hi", more: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    return f"--x\r\n{head}{more}\r\n\r\n{value}\r\n".encode("utf-8", "surrogateescape")


def _form(name: str, body: bytes, status: int, kind: str = "", **more: Any) -> Attack:
    headers = {"content-type": kind or "multipart/form-data; boundary=x"}
    return attack(f"form: {name}", NATIVE, body, status, headers=headers, **more)


END = b"--x--\r\n"


def _forms() -> Iterator[Attack]:
    good = _part("input") + _part("max_new_tokens", "1")
    yield _form("sound", good + END, 200)
    for name, kind in {
        "no boundary": "multipart/form-data",
        "empty boundary": "multipart/form-data; boundary=",
        "empty quoted boundary": 'multipart/form-data; boundary=""',
        "another boundary": "multipart/form-data; boundary=y",
        "a boundary of 1 000": "multipart/form-data; boundary=" + "x" * 1000,
        "a boundary of dashes": "multipart/form-data; boundary=" + "-" * 70,
        "a boundary with a pattern": "multipart/form-data; boundary=(x+)+$",
        "a boundary in a comment": "multipart/form-data; (boundary=x)",
        "an encoded boundary": "multipart/form-data; boundary*=utf-8''%78%0d%0a",
        "a broken charset": "multipart/form-data; boundary*=nonsense'x'%78y",
        "many boundaries": "multipart/form-data" + "; boundary=y" * 500,
        "open quotes": 'multipart/form-data; boundary="' + "(" * 2000,
    }.items():
        yield _form(name, good + END, 400, kind)
    yield _form("empty", b"", 400)
    yield _form("only the end", END, 422)
    yield _form("no end", good, 400)
    for name, separator in {"LF": b"\n", "CR": b"\r", "CRLF": b"\r\n"}.items():
        part = b"--x" + separator + b'Content-Disposition: form-data; name="a"' + separator * 2
        body = (part + b"1" + separator) * 100_000 + b"--x--"
        yield _form(f"100 000 parts divided by {name}", body, 400)
    yield _form("a million boundaries", b"--x\r\n" * 1_000_000, 400)


def _parts() -> Iterator[Attack]:
    good = _part("input") + _part("max_new_tokens", "1")
    heads = {
        "no name": "form-data",
        "a name in brackets": "form-data; name=" + "(" * 5000,
        "deep comments": "form-data; " + "(" * 20_000 + ")" * 20_000 + " name=a",
        "open quotes": 'form-data; name="' + '\\"' * 20_000,
        "an encoded name": "form-data; name*=utf-8''%ff%fe",
        "an unknown charset": "form-data; name*=nonsense''a",
        "pieces of a name": "".join(f"; name*{index}=a" for index in range(5000)),
        "pieces out of order": "form-data; name*9999999999=a",
        "encoded words": "form-data; name=" + "=?utf-8?q?a?=" * 5000,
        "an open encoded word": "form-data; name==?" + "x?" * 5000,
        "empty": "",
        "semicolons": ";" * 60_000,
        "equals": "form-data; " + "=" * 60_000,
        "only spaces": " " * 60_000,
    }
    for name, head in heads.items():
        body = b"--x\r\nContent-Disposition: " + head.encode() + b"\r\n\r\n1\r\n" + good + END
        yield _form(f"a head with {name}", body, 400)
    body = b"--x\r\n" + b"a: b\r\n" * 100_000 + b"\r\n1\r\n" + good + END
    yield _form("100 000 headers in a part", body, 400)
    body = (
        b"--x\r\n"
        + b"Content-Disposition: form-data;\r\n"
        + b" a\r\n" * 100_000
        + b"\r\n1\r\n"
        + END
    )
    yield _form("a header of 100 000 lines", body, 400)
    inner = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
    yield _form("forms in forms", b"--x\r\n" + inner + (b"--x\r\n" + inner) * 100 + END, 400)
    message = _part("max_new_tokens", "1") + _part("input", "a", "\r\nContent-Type: message/rfc822")
    yield _form("a message in a form", message + END, 200)
    yield _form("no text", _part("input", "\udcff\udcfe") + END, 422)
    yield _form("a number out of bounds", good + _part("temperature", "1e309") + END, 422)
    yield _form("NaN", good + _part("temperature", "NaN") + END, 422)
    yield _form("deep JSON", good + _part("stop", "[" * 100_000) + END, 422)
    yield _form("a file", good + _part("stop", "x", '; filename="../../x"') + END, 422)
    yield _form(
        "a part twice", good + _part("temperature", "9e9") + _part("temperature", "1") + END, 200
    )
    base64 = "\r\nContent-Transfer-Encoding: base64"
    yield _form(
        "broken base64", _part("max_new_tokens", "1") + _part("input", "%", base64) + END, 200
    )
    uu = "\r\nContent-Transfer-Encoding: x-uuencode"
    broken = _part("max_new_tokens", "1") + _part("input", "begin 666 x\r\n~~~~", uu) + END
    yield _form("broken uuencode", broken, 200)


BODIES: dict[str, list[Attack]] = {
    "JSON": list(_json()),
    "JSON inside": list(_inside()),
    "large": list(_large()),
    "compression": list(_gzip()),
    "media types": list(_media()),
    "forms": list(_forms()),
    "parts of forms": list(_parts()),
}
