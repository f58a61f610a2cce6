"""Bodies in memory are bounded, and counted back to nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.access.in_flight_bytes import InFlightBytes
from inferd.errors import TooManyRequests, Unavailable


def test_an_account_has_its_own_bound_and_all_share_another() -> None:
    counter = InFlightBytes(account_max=100, all_max=150)
    one, other, third = (counter.hold(name) for name in ("a", "a", "b"))
    one.grow_to(60)
    with pytest.raises(TooManyRequests, match="100"):
        other.grow_to(41)
    other.grow_to(40)
    with pytest.raises(Unavailable):
        third.grow_to(51)
    one.release()
    third.grow_to(100)
    assert counter.total == 140


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), max_size=30))
def test_whatever_was_counted_is_counted_back(steps: list[tuple[str, int]]) -> None:
    counter = InFlightBytes(account_max=100, all_max=150)
    holdings = {name: counter.hold(name) for name in "ab"}
    for name, size in steps:
        try:
            holdings[name].grow_to(size)
        except (TooManyRequests, Unavailable):
            holdings[name].release()
        assert counter.total <= 150
    for holding in holdings.values():
        holding.release()
        holding.release()
    assert counter.total == 0
