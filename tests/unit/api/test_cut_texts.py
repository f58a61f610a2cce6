"""Long base64 is cut out of a body, and nothing else ever is."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.api import cut_texts, steps
from inferd.api.cut_texts import CUT_BYTES_MIN, CUT_MARK, CutTexts, cut_out
from inferd.errors import BadRequest

LONG = "data:image/png;base64," + "QUJD" * (CUT_BYTES_MIN // 2)
BARE = "QUJD" * CUT_BYTES_MIN


def cut(body: bytes) -> tuple[Any, list[str]]:
    rest, texts = cut_out(body)
    return msgspec.json.decode(rest), [bytes(text).decode() for text in texts]


@pytest.mark.parametrize(
    ("given", "path", "text"),
    [
        ({"image": LONG}, ["image"], LONG),
        ({"prompt": "x", "image": [LONG]}, ["image", 0], LONG),
        ({"input_audio": {"data": BARE, "format": "wav"}}, ["input_audio", "data"], BARE),
        ({"a": 'x\\"' * 99, "url": LONG, "b": "\\"}, ["url"], LONG),
    ],
)
def test_long_media_is_cut_out(given: dict[str, Any], path: list[Any], text: str) -> None:
    rest, texts = cut(msgspec.json.encode(given))
    for step in path:
        rest = rest[step]
    assert (rest, texts) == (f"{CUT_MARK}0", [text])


def test_all_items_of_a_list_are_cut_out() -> None:
    rest, texts = cut(msgspec.json.encode({"image": [LONG, BARE, LONG], "mask": LONG}))
    assert rest == {"image": [f"{CUT_MARK}{n}" for n in range(3)], "mask": f"{CUT_MARK}3"}
    assert texts == [LONG, BARE, LONG, LONG]


def test_slashes_may_be_escaped() -> None:
    text = LONG.replace("/", "\\/")
    rest, texts = cut(b'{"image" :\n "' + text.encode() + b'"}')
    assert (rest, texts) == ({"image": f"{CUT_MARK}0"}, [text])


@pytest.mark.parametrize(
    "body",
    [
        msgspec.json.encode({"prompt": BARE}),
        msgspec.json.encode({"messages": [{"content": LONG}]}),
        msgspec.json.encode({"input": [BARE, BARE]}),
        msgspec.json.encode({"image": "!" + LONG}),
        msgspec.json.encode({"image": LONG[: CUT_BYTES_MIN // 2]}),
        msgspec.json.encode({"arguments": '{"data": "' + BARE + '"}'}),
        b'{"image": "' + BARE.encode() + b'\\n"}',
        b'{"image": ' + b" " * 3 * CUT_BYTES_MIN + b'"a"}',
        b'{"image": [' + b"1," * 3 * CUT_BYTES_MIN + b'1], "a": ""}',
    ],
)
def test_prompts_and_what_is_no_plain_base64_stay(body: bytes) -> None:
    assert cut_out(body) == (body, [])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_texts, "CUT_BYTES_MIN", 16)
    monkeypatch.setattr(cut_texts, "_STEP", 8)
    monkeypatch.setattr(steps, "STEP_BYTES", 8)
    monkeypatch.setattr(steps, "PAUSE_SECONDS", 0)


_TEXT = st.text(alphabet='Aa0+/"\\ :,[]{}-', max_size=60)
_JSON = st.recursive(
    st.integers() | _TEXT | st.text("AB01", min_size=14, max_size=60),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["image", "data", "url", "text", "a"]), inner)
    ),
    max_leaves=12,
)


@pytest.mark.usefixtures("small")
@given(_JSON, st.booleans())
def test_with_its_texts_put_back_a_body_says_the_same(value: Any, indented: bool) -> None:
    body = msgspec.json.encode(value)
    body = msgspec.json.format(body, indent=2) if indented else body
    rest, texts = cut_out(body)
    told = msgspec.json.encode(msgspec.json.decode(rest)).decode()
    whole = re.sub(r"\\u0000text:(\d+)", lambda mark: bytes(texts[int(mark[1])]).decode(), told)
    assert msgspec.json.decode(whole) == value


def test_a_text_is_taken_once_and_counted_until_all_are() -> None:
    released: list[int] = []
    texts = CutTexts([memoryview(b"a"), memoryview(b"b")], lambda: released.append(1))
    assert texts.take(f"{CUT_MARK}1") == b"b"
    texts.taken()
    assert not released
    for mark in (f"{CUT_MARK}1", f"{CUT_MARK}2", CUT_MARK, f"{CUT_MARK}²"):
        with pytest.raises(BadRequest):
            texts.take(mark)
    texts.take(f"{CUT_MARK}0")
    texts.taken()
    assert released
