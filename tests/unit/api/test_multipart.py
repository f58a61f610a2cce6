"""Forms with files: what clients send is read, what attackers send costs nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.api.errors import FieldInvalid
from inferd.api.multipart import (
    FILE_MARK,
    HEAD_BYTES_MAX,
    PARTS_MAX,
    FormFile,
    decode_form,
    decode_form_with_files,
)
from inferd.errors import BadRequest
from tests.awake import Stopwatch

KIND = b"multipart/form-data; boundary=cut"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of every kind."""

    image: str = ""
    many: list[str] | None = None
    count: int | None = None
    deep: dict[str, Any] | None = None
    yes: bool = False
    either: list[str] | str = ""
    few: str | Annotated[list[str], msgspec.Meta(max_length=2)] | None = None


def form(*parts: bytes) -> bytes:
    return b"".join(b"--cut\r\n" + part + b"\r\n" for part in parts) + b"--cut--\r\n"


def part(parameters: str, content: bytes = b"x") -> bytes:
    head = f"Content-Disposition: form-data{parameters}"
    return head.encode("latin-1") + b"\r\n\r\n" + content


def read(*parts: bytes) -> tuple[Form, list[FormFile]]:
    return decode_form_with_files(form(*parts), KIND, Form)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ('; name="image"; filename="a.png"', "a.png"),
        ("; name=image; filename=a.png", "a.png"),
        ('; filename="a.png"; name="image"', "a.png"),
        ('; name="image" ; filename="a;b=c.png"  ', "a;b=c.png"),
        (r'; name="image"; filename="a\"b.png"', 'a"b.png'),
        ('; NAME="image"; FileName=""', ""),
        ("; name=\"image\"; filename*=utf-8''%C3%A9.png", "utf-8''%C3%A9.png"),
        ('; name="image"; filename="\xff"', "\ufffd"),
        ('; name="image"; filename="a"; filename="b"', "a"),
        (';name="image";filename="' + "a" * 900 + '"', "a" * 255),
    ],
)
def test_a_part_with_a_file_name_is_a_file(parameters: str, name: str) -> None:
    made, files = read(part(parameters, b"plain text"))
    assert files == [FormFile(name, b"plain text")]
    assert made.image == f"{FILE_MARK}0"


def test_bytes_without_a_file_name_are_a_file_and_text_is_none() -> None:
    made, files = read(part('; name="image"', b"\x89PNG\r\n"), part('; name="count"', b"3"))
    assert files == [FormFile("", b"\x89PNG\r\n")]
    assert made == Form(image=f"{FILE_MARK}0", count=3)


def test_values_are_read_as_each_client_writes_them() -> None:
    made, files = read(
        part('; name="image"', b'"quoted"'),
        part('; name="many"', b'["a", "b"]'),
        part('; name="count"', b"7"),
        part('; name="deep"', b'{"a": [1]}'),
        part('; name="yes"', b"true"),
        part('; name="unknown"; filename="x"', b"ignored"),
    )
    assert made == Form(image="quoted", many=["a", "b"], count=7, deep={"a": [1]}, yes=True)
    assert files == []


@pytest.mark.parametrize("name", ["many", "either", "few"])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'["I like chocolate"]', ["I like chocolate"]),
        (b' ["a","b"] ', ["a", "b"]),
        (b"[]", []),
        (b"[1] is a footnote", ["[1] is a footnote"]),
        (b"[1, 2]", ["[1, 2]"]),
        (b'["a", null]', ['["a", null]']),
        (b'["a"', ['["a"']),
        (b'"quoted"', ["quoted"]),
        (b"42", ["42"]),
        (b'["\\u0000file:0"]', ["file:0"]),
    ],
)
def test_a_list_comes_as_a_json_array_and_other_text_is_text(
    name: str, text: bytes, value: list[str]
) -> None:
    made, files = read(part(f'; name="{name}"', text))
    assert getattr(made, name) == value
    assert files == []


def test_an_array_that_is_too_long_is_refused_by_its_name() -> None:
    with pytest.raises(FieldInvalid) as caught:
        read(part('; name="few"', b'["a", "b", "c"]'))
    assert caught.value.param == "few"


def test_what_does_not_fit_is_shown_without_files() -> None:
    with pytest.raises(FieldInvalid) as caught:
        read(part('; name="image"; filename="a"', b"1"), part('; name="count"', b"many"))
    assert (caught.value.param, caught.value.given) == ("count", "many")
    with pytest.raises(FieldInvalid) as caught:
        read(part('; name="count"; filename="a"', b"1"))
    assert (caught.value.param, caught.value.given) == ("count", None)


def test_an_empty_part_is_a_list_that_was_left_out() -> None:
    assert read(part('; name="many"', b""))[0].many is None


def test_a_name_that_repeats_is_a_list() -> None:
    made, files = read(
        part('; name="many[]"; filename="a"', b"1"), part('; name="many"; filename="b"', b"2")
    )
    assert made.many == [f"{FILE_MARK}0", f"{FILE_MARK}1"]
    assert [file.name for file in files] == ["a", "b"]


def test_only_a_file_looks_like_a_file() -> None:
    other = part('; name="many"; filename="a"', b"1")
    made, files = read(other, part('; name="image"', b"\0file:0"))
    assert made.image == f"{FILE_MARK}1"
    assert files[1].content == b"\0file:0"
    made, _ = read(other, part('; name="image"', b'"\\u0000file:0"'))
    assert made.image == "file:0"


def test_a_file_is_refused_where_text_is_expected() -> None:
    with pytest.raises(BadRequest):
        decode_form(form(part('; name="image"; filename="a"')), KIND, Form)


@pytest.mark.parametrize(
    "parameters",
    [
        *("", ";", "; name", "; name=", '; name=""', '; name="image', "; =image", "; name image"),
        *('; name="image" x', '; name="a"b"', f'; name="{"n" * 257}"', '; name="\xff"'),
        *("; filename=a", 'x; name="image"', '; na me="image"', '; name="image"; \0=x'),
    ],
)
def test_a_part_without_a_sound_name_is_refused(parameters: str) -> None:
    with pytest.raises(BadRequest):
        read(part(parameters))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"--cut", b"--cut\r\n", b"--cut\r\n\r\n", b"cut--", b"x", b"\r\n", b"--cutx--"),
        *(b"--cut\r\n" + part('; name="image"'), b"--cut\r\n--cut--", b"--cut\r\n\r\n--cut--"),
        b"--cut\r\nContent-Disposition: form-data; name=image\r\n--cut--",
        form(b"x: " + b"a" * HEAD_BYTES_MAX + b"\r\n" + part('; name="image"')),
        form(*[part('; name="image"')] * (PARTS_MAX + 1)),
        b"\r\n--cut\r\n" * 100_000,
    ],
)
def test_a_form_that_is_not_sound_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_form_with_files(body, KIND, Form)


def test_what_stands_before_and_behind_is_nobodys() -> None:
    body = b"hello\r\n" + form(part('; name="image"', b"x")) + b"trailer"
    assert decode_form_with_files(body, KIND, Form)[0].image == "x"
    assert decode_form_with_files(b"--cut--", KIND, Form) == (Form(), [])


@given(st.lists(st.binary(max_size=80).filter(lambda content: b"\r\n--cut" not in content)))
def test_bytes_come_out_as_they_went_in(contents: list[bytes]) -> None:
    parts = [part('; name="many"; filename="a"', content) for content in contents[:PARTS_MAX]]
    _, files = read(*parts)
    assert [file.content for file in files] == contents[:PARTS_MAX]


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(body: bytes) -> None:
    with suppress(BadRequest):
        decode_form_with_files(b"--cut" + body + b"\r\n--cut--", KIND, Form)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "; a= ",
            "; a=\t",
            '; a="x" ',
            ";",
            "; ",
            ";a",
            " ",
            '"',
            '="',
            "\\",
            '; a="\\',
            "; name=",
        ),
        *(';name="a"', '; filename="', "\r\nx:", "\r\nContent-Disposition: form-data; a= "),
    ],
)
def test_a_head_that_repeats_itself_is_read_in_linear_time(text: str) -> None:
    head = ("; a=b" + text * HEAD_BYTES_MAX)[: HEAD_BYTES_MAX - 40]
    body = form(*[part(head)] * PARTS_MAX)
    clock = Stopwatch()
    with suppress(BadRequest):
        decode_form_with_files(body, KIND, Form)
    assert clock.seconds() < 1


def test_a_large_file_is_read_in_linear_time() -> None:
    content = b"\r\n--cu" * 3_000_000
    clock = Stopwatch()
    _, files = read(part('; name="image"; filename="a"', content))
    assert files[0].content == content
    assert clock.seconds() < 1
