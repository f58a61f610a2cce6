"""The only arithmetic with money. Pure; rounded once, half up, to the nano-dollar.

cost = (fresh input × input rate + cached input × cached rate + output × output rate
        + quantity × unit rate) × tier ÷ 1,000,000
       where fresh + cached = input tokens, and quantity is in the task's own unit
"""

from __future__ import annotations

from inferd.metering.prices import Price
from inferd.money import UNITS_PER_RATE, NanoUsd
from inferd.tasks.base import MICRO, Usage

ONE = 1_000_000
"""A multiplier of 1, in millionths."""


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
    divisor = MICRO * UNITS_PER_RATE * ONE
    return NanoUsd((2 * micro_total * price.tiers.get(tier, ONE) + divisor) // (2 * divisor))


def cost_bound(most: Usage, price: Price, tier: str = "default") -> NanoUsd:
    """The most that a request of this usage can cost: nothing comes from the cache."""
    rate = max(price.input, price.cached)
    total = most.input_tokens * rate + most.output_tokens * price.output
    micro_total = total * MICRO + most.quantity * price.unit
    return NanoUsd(-(-micro_total * price.tiers.get(tier, ONE) // (MICRO * UNITS_PER_RATE * ONE)))
