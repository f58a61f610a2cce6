"""The only arithmetic with money. Pure; rounded once, half up, to the nano-dollar.

cost = (fresh input × input rate + cached input × cached rate + output × output rate) × tier
       ÷ 1,000,000        where fresh + cached = input tokens
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from inferd.metering.prices import Price
from inferd.money import UNITS_PER_RATE, NanoUsd
from inferd.tasks.base import Usage

ONE = 1_000_000
"""A multiplier of 1, in millionths."""


def cost(usage: Usage, price: Price, tier: str = "default") -> NanoUsd:
    """What this usage costs at this price, in a tier that it has; in another, the default.

    >>> from inferd.money import Rate
    >>> cost(Usage(input_tokens=3), Price(1, "m", Rate(500_000), Rate(0), Rate(0)))
    2
    """
    fresh = usage.input_tokens - usage.cached_tokens
    if fresh < 0 or usage.cached_tokens < 0 or usage.output_tokens < 0:
        raise ValueError("Usage units are disjoint and never negative.")
    total = (
        fresh * price.input
        + usage.cached_tokens * price.cached
        + usage.output_tokens * price.output
    )
    exact = Decimal(total * price.tiers.get(tier, ONE)) / (UNITS_PER_RATE * ONE)
    return NanoUsd(int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP)))


def cost_bound(
    *, input_tokens_max: int, output_tokens_max: int, price: Price, tier: str = "default"
) -> NanoUsd:
    """The most that a request can cost: everything fresh, every output token used."""
    rate = max(price.input, price.cached)
    total = input_tokens_max * rate + output_tokens_max * price.output
    return NanoUsd(-(-total * price.tiers.get(tier, ONE) // (UNITS_PER_RATE * ONE)))
