"""When a picture is shown on its way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.tasks.base import CHUNK_BYTES_MAX, NOTHING
from inferd.tasks.text_to_image import PREVIEWS_MAX, STEPS_MAX, preview_pieces, preview_steps


@pytest.mark.parametrize(
    ("first", "last", "previews", "after"),
    [
        (0, 20, 0, []),
        (0, 20, 1, [10]),
        (0, 20, 3, [5, 10, 15]),
        (12, 20, 3, [14, 16, 18]),
        (0, 4, 3, [1, 2, 3]),
        (0, 3, 3, [1, 2]),
        (0, 2, 3, [1]),
        (0, 1, 3, []),
        (20, 20, 3, []),
    ],
)
def test_previews_are_spread_over_the_steps(
    first: int, last: int, previews: int, after: list[int]
) -> None:
    assert preview_steps(first, last, previews) == after


@given(
    first=st.integers(0, STEPS_MAX), last=st.integers(0, STEPS_MAX), n=st.integers(0, PREVIEWS_MAX)
)
def test_as_many_as_are_asked_if_there_are_steps_for_them(first: int, last: int, n: int) -> None:
    steps = preview_steps(first, last, n)
    assert len(steps) == max(0, min(n, last - first - 1))
    assert all(first < step < last for step in steps)


@given(size=st.integers(1, 3 * CHUNK_BYTES_MAX))
def test_pieces_fit_a_frame_and_the_last_one_says_so(size: int) -> None:
    pieces = list(preview_pieces(1, 2, bytes(size), NOTHING))
    assert sum(len(one.data) for one in pieces) == size
    assert max(len(one.data) for one in pieces) <= CHUNK_BYTES_MAX
    assert [one.whole for one in pieces] == [False] * (len(pieces) - 1) + [True]
