"""Base64 of every spelling, in pieces."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.api import base64_text, steps


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_text, "PIECE_CHARACTERS", 8)
        patch.setattr(steps, "PAUSE_SECONDS", 0)
        yield


def decoded(text: str) -> bytes:
    return b"".join(base64_text.decoded(text))


@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.integers(1, 80))
def test_every_spelling_is_read(content: bytes, url: bool, padded: bool, width: int) -> None:
    text = (urlsafe_b64encode if url else b64encode)(content).decode()
    text = text if padded else text.rstrip("=")
    lines = "\r\n".join(text[at : at + width] for at in range(0, len(text), width))
    assert decoded(text) == decoded(lines) == content
    escaped = memoryview(text.replace("/", "\\/").encode())
    assert b"".join(base64_text.decoded(escaped)) == content


@pytest.mark.parametrize(
    "text",
    ["A", "AA=A", "AA==AAAA", "AAAA====", "A===", "*AAA", "AAAAAAAA*", "é", "AAAAA", "=", "\0"],
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decoded(text)
