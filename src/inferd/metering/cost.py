"""The only arithmetic with money. Pure; rounded once, half up, to the nano-dollar.

cost = (fresh input × input rate + cached input × cached rate + output × output rate
        + quantity × unit rate) × tier × (1 − discount) ÷ 1,000,000
       where fresh + cached = input tokens, and quantity is in the price's own unit

An invoice shows the same sum in parts: `lines` splits it by rate.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.metering.prices import ONE, Price
from inferd.money import UNITS_PER_RATE, NanoUsd, Rate
from inferd.tasks.base import MICRO, Unit, Usage

_DIVISOR = MICRO * UNITS_PER_RATE * ONE * ONE
"""Quantities are millionths, rates are per million, tier and discount are in millionths."""

Part = Literal["input_tokens", "cached_tokens", "output_tokens"] | Unit


def cost(usage: Usage, price: Price, tier: str = "default") -> NanoUsd:
    """What this usage costs at this price, in a tier that it has; in another, the default.

    >>> from inferd.money import Rate
    >>> cost(Usage(input_tokens=3), Price(1, "m", Rate(500_000), Rate(0), Rate(0)))
    2
    """
    fresh = usage.input_tokens - usage.cached_tokens
    if min(fresh, usage.cached_tokens, usage.output_tokens, usage.quantity) < 0:
        raise ValueError("Usage units are disjoint and never negative.")
    total = (
        fresh * price.input
        + usage.cached_tokens * price.cached
        + usage.output_tokens * price.output
    )
    micro_total = total * MICRO + usage.quantity * price.unit
    # Whole numbers throughout: half up is one more before an integer division by the double.
    return NanoUsd((2 * micro_total * _share(price, tier) + _DIVISOR) // (2 * _DIVISOR))


def cost_bound(most: Usage, price: Price, tier: str = "default") -> NanoUsd:
    """The most that a request of this usage can cost: every input token at its dearer rate."""
    rate = max(price.input, price.cached)
    total = most.input_tokens * rate + most.output_tokens * price.output
    micro_total = total * MICRO + most.quantity * price.unit
    return NanoUsd(-(-micro_total * _share(price, tier) // _DIVISOR))


class Line(msgspec.Struct, frozen=True):
    """A part of a sum: so many units of one kind at one rate."""

    part: Part
    units_micro: int
    """Millionths of the unit, tokens too."""
    rate: Rate
    """Before tier and discount."""
    cost_nanos: NanoUsd
    """Rounded by itself: the parts of many requests may differ from their sum by that rounding."""


def lines(usage: Usage, price: Price, tier: str = "default") -> list[Line]:
    """The parts of a cost that are not empty. `usage` may be the sum of many requests."""
    fresh = usage.input_tokens - usage.cached_tokens
    kinds: list[tuple[Part, int, Rate]] = [
        ("input_tokens", fresh * MICRO, price.input),
        ("cached_tokens", usage.cached_tokens * MICRO, price.cached),
        ("output_tokens", usage.output_tokens * MICRO, price.output),
    ]
    if price.billed_unit is not None:
        kinds.append((price.billed_unit, usage.quantity, price.unit))
    share = _share(price, tier)
    return [
        Line(part, units, rate, NanoUsd((2 * units * rate * share + _DIVISOR) // (2 * _DIVISOR)))
        for part, units, rate in kinds
        if units
    ]


def _share(price: Price, tier: str) -> int:
    """What everything is multiplied with, in millionths of millionths."""
    return price.tiers.get(tier, ONE) * (ONE - price.discount)
