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
prices = st.builds(Price, st.just(1), st.just("a/b"), rates, rates, rates)
counts = st.integers(0, 10**7)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    processed = draw(counts)
    return Usage(processed, draw(st.integers(0, processed)), draw(counts))


@given(usages(), prices)
def test_a_cost_is_the_exact_sum_rounded_once_half_up(usage: Usage, price: Price) -> None:
    fresh = usage.input_tokens - usage.cached_tokens
    exact = Fraction(
        fresh * price.input
        + usage.cached_tokens * price.cached
        + usage.output_tokens * price.output,
        1_000_000,
    )
    assert cost(usage, price) == int(exact + Fraction(1, 2))


@given(usages(), prices)
def test_the_bound_covers_every_usage_inside_it(usage: Usage, price: Price) -> None:
    bound = cost_bound(
        input_tokens_max=usage.input_tokens, output_tokens_max=usage.output_tokens, price=price
    )
    assert cost(usage, price) <= bound


@pytest.mark.parametrize("usage", [Usage(1, 2, 0), Usage(0, 0, -1), Usage(1, -1, 0)])
def test_units_that_make_no_sense_are_refused(usage: Usage) -> None:
    with pytest.raises(ValueError, match="disjoint"):
        cost(usage, Price(1, "a/b", Rate(1), Rate(1), Rate(1)))
