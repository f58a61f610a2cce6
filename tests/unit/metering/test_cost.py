"""Money arithmetic: exact, rounded once, never over its bound."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.metering.cost import cost, cost_bound
from inferd.metering.prices import Price
from inferd.money import Rate
from inferd.tasks.base import Usage

rates = st.integers(0, 10**12).map(Rate)
prices = st.builds(Price, st.just(1), st.just("a/b"), rates, rates, rates, rates)
counts = st.integers(0, 10**7)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    processed = draw(counts)
    cached = draw(st.integers(0, processed))
    return Usage(processed, cached, draw(counts), quantity=draw(st.integers(0, 10**12)))


@given(usages(), prices)
def test_a_cost_is_the_exact_sum_rounded_once_half_up(usage: Usage, price: Price) -> None:
    fresh = usage.input_tokens - usage.cached_tokens
    exact = Fraction(
        fresh * price.input
        + usage.cached_tokens * price.cached
        + usage.output_tokens * price.output,
        1_000_000,
    ) + Fraction(usage.quantity * price.unit, 10**12)
    assert cost(usage, price) == int(exact + Fraction(1, 2))


@given(usages(), prices)
def test_the_bound_covers_every_usage_inside_it(usage: Usage, price: Price) -> None:
    assert cost(usage, price) <= cost_bound(usage, price)


@pytest.mark.parametrize(
    "usage", [Usage(1, 2, 0), Usage(0, 0, -1), Usage(1, -1, 0), Usage(quantity=-1)]
)
def test_units_that_make_no_sense_are_refused(usage: Usage) -> None:
    with pytest.raises(ValueError, match="disjoint"):
        cost(usage, Price(1, "a/b", Rate(1), Rate(1), Rate(1)))
