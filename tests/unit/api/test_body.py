"""Bodies: what is refused, and that nothing grows beyond its cap on the way."""

from __future__ import annotations

import gzip
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.api.body import check_media_type, decode, gunzip
from inferd.api.errors import FieldInvalid
from inferd.api.openai.chat import ChatIn
from inferd.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType

CHAT = msgspec.json.Decoder(ChatIn)


@given(st.binary(max_size=5000), st.integers(1, 3))
def test_gzip_members_come_back_whole(body: bytes, members: int) -> None:
    packed = b"".join(gzip.compress(body) for _ in range(members))
    assert gunzip(packed, bytes_max=20_000) == body * members


def test_a_gzip_bomb_stops_at_the_cap() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(PayloadTooLarge):
        gunzip(bomb, bytes_max=1000)


@pytest.mark.parametrize("body", [b"not gzip", gzip.compress(b"x" * 1000)[:-9]])
def test_broken_gzip_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        gunzip(body, bytes_max=10_000)


@pytest.mark.parametrize("kind", [None, b"application/json", b"application/json; charset=utf-8"])
def test_json_and_no_type_at_all_are_accepted(kind: bytes | None) -> None:
    check_media_type(kind)


@pytest.mark.parametrize("kind", [b"application/x-pickle", b"image/png", b"multipart/form-data"])
def test_other_media_types_are_refused(kind: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_media_type(kind)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":"a/b","messages":[{"role":"user","content":1}]}', "messages.0.content"),
        (b'{"model":"a/b","messages":[]}', "messages"),
        (b'{"model":"a/b","messages":[{"role":"user","content":"x"}],"n":1000000000}', "n"),
        (
            b'{"model":"a/b","messages":[{"role":"user","content":"x"}],"max_tokens":-1}',
            "max_tokens",
        ),
        (b'{"model":"a/b","messages":[{"role":"root","content":"x"}]}', "messages.0.role"),
    ],
)
def test_a_wrong_field_is_named(body: bytes, param: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        decode(body, CHAT)
    assert caught.value.param == param
    assert "`" not in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[1]",
        b"\xff\xfe",
        b'{"model":"\xff"}',
        b'{"model":"\\ud800","messages":[]}',
        b"[" * 100_000,
        b'{"model":' * 10_000,
        b'{"model":"a/b","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"model":"a/b","messages":[{"role":"user","content":"x"}],"temperature":1e400}',
        b'{"model":"a/b","messages":[{"role":"user","content":"x"}],"max_tokens":1e12}',
    ],
)
def test_hostile_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(body, CHAT)


class Shape(msgspec.Struct):
    """Fields of every kind."""

    name: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    many: list[str] = []
    deep: dict[str, int] = {}
    maybe: float | None = None
    inner: list[Shape] = []


@pytest.mark.parametrize(
    ("body", "fault", "param", "said", "given"),
    [
        (b"{}", "missing", "name", "Field required", {}),
        (b'{"count": 2}', "missing", "name", "Field required", {"count": 2}),
        (b'{"name":"a","inner":[{}]}', "missing", "inner.0.name", "Field required", {}),
        (b'{"name":7}', "string_type", "name", "Expected str, got int", 7),
        (b'{"name":"a","count":"b"}', "int_type", "count", "Expected int, got str", "b"),
        (b'{"name":"a","count":0}', "value_error", "count", "Expected int >= 1", 0),
        (b'{"name":"a","many":[1]}', "string_type", "many.0", "Expected str, got int", 1),
        (b'{"name":"a","deep":{"x":"y"}}', "int_type", "deep....", "Expected int, got str", None),
        (b'{"name":"a","maybe":[]}', "float_type", "maybe", "Expected float | null, got array", []),
        (b"[]", "dict_type", None, "Expected object, got array", []),
    ],
)
def test_the_field_that_does_not_fit_is_told_with_its_fault_and_value(
    body: bytes, fault: str, param: str | None, said: str, given: object
) -> None:
    with pytest.raises(FieldInvalid) as caught:
        decode(body, msgspec.json.Decoder(Shape))
    error = caught.value
    assert (error.fault, error.param, error.said, error.given) == (fault, param, said, given)
    assert error.message == (f"{param}: {said}." if param else f"{said}.")


def test_a_long_value_is_not_sent_back() -> None:
    with pytest.raises(FieldInvalid) as caught:
        decode(msgspec.json.encode({"name": ["a" * 5000]}), msgspec.json.Decoder(Shape))
    assert caught.value.given is None
