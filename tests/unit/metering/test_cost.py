"""Money arithmetic: exact, rounded once, never over its bound."""

from __future__ import annotations

from fractions import Fraction
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.catalog.card_price import UNITS, CardPrice
from inferd.metering.cost import cost, cost_bound, lines
from inferd.metering.prices import ONE, Price
from inferd.metering.units import TIMED_SECONDS_MAX, billed, bound
from inferd.money import Rate
from inferd.tasks.base import MICRO, TASK_UNITS, TaskName, Usage, priced_units
from inferd.tasks.text_generation import DetokenizeRequest
from inferd.tasks.text_to_video import VideoRequest
from tests.gateway import echo_card

rates = st.integers(0, 10**12).map(Rate)
tiers = st.dictionaries(st.sampled_from(["priority", "flex"]), st.integers(1, 10**9))
prices = st.builds(
    Price,
    st.just(1),
    st.just("a/b"),
    rates,
    rates,
    rates,
    rates,
    tiers,
    st.sampled_from([None, *UNITS]),
    st.integers(0, ONE),
)
tier_names = st.sampled_from(["default", "priority", "flex"])
counts = st.integers(0, 10**7)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    processed = draw(counts)
    cached = draw(st.integers(0, processed))
    return Usage(processed, cached, draw(counts), quantity=draw(st.integers(0, 10**12)))


def exact(usage: Usage, price: Price, tier: str) -> Fraction:
    fresh = usage.input_tokens - usage.cached_tokens
    tokens = (
        fresh * price.input
        + usage.cached_tokens * price.cached
        + usage.output_tokens * price.output
    )
    whole = Fraction(tokens, 10**6) + Fraction(usage.quantity * price.unit, 10**12)
    tier_share = Fraction(price.tiers.get(tier, ONE), ONE)
    return whole * tier_share * (1 - Fraction(price.discount, ONE))


@given(usages(), prices, tier_names)
def test_a_cost_is_the_exact_sum_rounded_once_half_up(
    usage: Usage, price: Price, tier: str
) -> None:
    assert cost(usage, price, tier) == int(exact(usage, price, tier) + Fraction(1, 2))


@given(usages(), usages(), prices, tier_names)
def test_the_bound_covers_every_usage_inside_it(
    most: Usage, usage: Usage, price: Price, tier: str
) -> None:
    inside = Usage(
        min(usage.input_tokens, most.input_tokens),
        min(usage.cached_tokens, most.input_tokens, usage.input_tokens),
        min(usage.output_tokens, most.output_tokens),
        quantity=min(usage.quantity, most.quantity),
    )
    assert cost(inside, price, tier) <= cost_bound(most, price, tier)


@given(usages(), prices, tier_names, st.integers(0, 3), st.integers(1, 10**6))
def test_more_usage_never_costs_less(
    usage: Usage, price: Price, tier: str, which: int, more: int
) -> None:
    grown = msgspec.structs.replace(
        usage,
        input_tokens=usage.input_tokens + (more if which in (0, 1) else 0),
        cached_tokens=usage.cached_tokens + (more if which == 1 else 0),
        output_tokens=usage.output_tokens + (more if which == 2 else 0),
        quantity=usage.quantity + (more if which == 3 else 0),
    )
    assert cost(grown, price, tier) >= cost(usage, price, tier)


@given(usages(), prices, tier_names, st.integers(0, ONE))
def test_a_larger_discount_never_costs_more(
    usage: Usage, price: Price, tier: str, discount: int
) -> None:
    less = msgspec.structs.replace(price, discount=max(discount, price.discount))
    assert cost(usage, less, tier) <= cost(usage, price, tier)


@given(usages(), prices.filter(lambda price: price.billed_unit is not None), tier_names)
def test_the_lines_of_an_invoice_are_the_cost_but_for_their_own_rounding(
    usage: Usage, price: Price, tier: str
) -> None:
    parts = lines(usage, price, tier)
    assert abs(sum(line.cost_nanos for line in parts) - cost(usage, price, tier)) <= 2


@pytest.mark.parametrize(
    "usage", [Usage(1, 2, 0), Usage(0, 0, -1), Usage(1, -1, 0), Usage(quantity=-1)]
)
def test_units_that_make_no_sense_are_refused(usage: Usage) -> None:
    with pytest.raises(ValueError, match="disjoint"):
        cost(usage, Price(1, "a/b", Rate(1), Rate(1), Rate(1)))


QUOTED = {
    "input_seconds": ("0.0001", 90 * MICRO, 9_000_000),
    "input_characters": ("10", 1234 * MICRO, 12_340_000),
    "image_units": ("0.002", 1_500_000, 3_000_000),
    "output_seconds": ("0.5", 2_500_000, 1_250_000_000),
    "frame_units": ("0.001", 3 * MICRO + 1, 3_000_001),
    "compute_seconds": ("0.0005", 1_234_567, 617_284),
    "uptime_seconds": ("0.00025", 3600 * MICRO, 900_000_000),
}
"""Unit → dollars as quoted, millionths that are used, nano-dollars that they cost."""


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_billed_as_it_is_quoted(unit: str) -> None:
    quote, quantity, nanos = QUOTED[unit]
    quoted = msgspec.convert({unit: quote}, CardPrice)
    price = Price(1, "a/b", *quoted.rates(), quoted.unit_rate(), {}, quoted.unit(), discount=0)
    assert cost(Usage(quantity=quantity), price) == nanos


@pytest.mark.parametrize("task", get_args(TaskName))
def test_a_task_is_priced_in_its_own_unit_or_by_time(task: TaskName) -> None:
    allowed = priced_units(task)
    assert {"compute_seconds", "uptime_seconds"} <= set(allowed)
    assert task not in TASK_UNITS or allowed[0] == TASK_UNITS[task]
    for unit in UNITS:
        quoted = msgspec.convert({unit: "1", "payer": "acc"}, CardPrice)
        if unit != "uptime_seconds":
            quoted = msgspec.structs.replace(quoted, payer=None)
        assert (quoted.problems(task) == []) == (unit in allowed)


def priced(unit: str, rate: int = 10**6) -> Price:
    quoted = msgspec.convert({unit: "1"}, CardPrice)
    return Price(1, "a/b", Rate(0), Rate(0), Rate(0), Rate(rate), {}, quoted.unit())


FILM = VideoRequest("a/b", "a cat", width=64, height=48, frames_per_second=10)
CINEMA = echo_card(task="text-to-video", options={"side": 192, "frames_per_second": 16})


def test_a_film_may_be_billed_by_its_frames() -> None:
    usage = Usage(quantity=2 * MICRO)
    found = billed(usage, priced("frame_units"), CINEMA, FILM, 9)
    assert found.quantity == round(20 * 64 * 48 / 2**20 * MICRO)
    plain = billed(usage, priced("frame_units"), CINEMA, VideoRequest("a/b", "a cat"), 9)
    assert plain.quantity == round(32 * 192 * 192 / 2**20 * MICRO)
    assert billed(usage, priced("output_seconds"), CINEMA, FILM, 9) is usage


@given(st.integers(0, 10**9), st.floats(0, 10**6))
def test_the_bound_holds_in_every_unit(micros: int, seconds: float) -> None:
    usage = Usage(quantity=micros)
    for unit in ("frame_units", "output_seconds", "compute_seconds", "uptime_seconds"):
        price = priced(unit)
        most = bound(usage, price, CINEMA, FILM, "default")
        assert cost(billed(usage, price, CINEMA, FILM, seconds), price) <= most


def test_time_is_billed_up_to_a_bound_and_uptime_not_to_callers() -> None:
    card, request = echo_card(), DetokenizeRequest("a/b", (1,))
    timed = billed(Usage(5, 0, 5), priced("compute_seconds"), card, request, 1.25)
    assert (timed.quantity, timed.input_tokens) == (1_250_000, 5)
    longest = billed(Usage(), priced("compute_seconds"), card, request, 10**9)
    assert longest.quantity == TIMED_SECONDS_MAX * MICRO
    assert billed(Usage(), priced("uptime_seconds"), card, request, 9).quantity == 0
