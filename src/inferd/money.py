"""Money is integers.

An amount is nano-dollars (10⁻⁹ USD). A rate is nano-dollars per 1,000,000 units, so $0.02 per
million tokens is 20,000,000. Quoted decimals come in as strings, floats never.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import NewType

NanoUsd = NewType("NanoUsd", int)
"""An amount: 1 = 10⁻⁹ USD."""

Rate = NewType("Rate", int)
"""Nano-dollars per 1,000,000 units."""

NANOS_PER_USD = 1_000_000_000
UNITS_PER_RATE = 1_000_000
NANOS_MAX = 10**18
"""A billion dollars: sums of such amounts still fit the 63 bits of a database column."""


def nanos_from_usd(quoted: str) -> int:
    """Read a quoted decimal of dollars; refuse what is finer than a nano-dollar or not finite.

    Raises ValueError with a sentence.
    """
    try:
        amount = Decimal(quoted) * NANOS_PER_USD
    except InvalidOperation:
        raise ValueError(f"{quoted!r} is not a decimal amount of dollars.") from None
    if not amount.is_finite() or abs(amount) > NANOS_MAX or amount % 1:
        raise ValueError(
            f"{quoted!r} is not a whole number of nano-dollars within a billion dollars."
        )
    return int(amount)


def usd(nanos: int) -> float:
    """Dollars for a response body. The only place where money becomes a float."""
    return nanos / NANOS_PER_USD


def usd_text(nanos: int) -> str:
    """Dollars for people: `$0.000114`, exact, without trailing zeros."""
    whole, fraction = divmod(abs(nanos), NANOS_PER_USD)
    digits = f"{fraction:09d}".rstrip("0")
    text = f"{whole}.{digits}" if digits else str(whole)
    return f"{'-' if nanos < 0 else ''}${text}"
