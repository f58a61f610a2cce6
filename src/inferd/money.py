"""Money is integers.

An amount is nano-dollars (10⁻⁹ USD). A rate is nano-dollars per 1,000,000 units, so $0.02 per
million tokens is 20,000,000. Quoted decimals come in as strings, floats never.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NewType

NanoUsd = NewType("NanoUsd", int)
"""An amount: 1 = 10⁻⁹ USD."""

Rate = NewType("Rate", int)
"""Nano-dollars per 1,000,000 units."""

# At most 27 digits: products with a power of ten stay exact in Decimal's 28.
_QUOTED = re.compile(r"[-+]?[0-9]{1,12}(?:\.[0-9]{0,15})?(?:[eE][-+]?[0-9]{1,2})?")
NANOS_PER_USD = 1_000_000_000
UNITS_PER_RATE = 1_000_000
NANOS_MAX = 10**18
"""A billion dollars: sums of such amounts still fit the 63 bits of a database column."""


def nanos_from_usd(quoted: str) -> int:
    """Read a quoted decimal of dollars; refuse what is finer than a nano-dollar or not finite.

    Raises ValueError with a sentence.
    """
    return nanos_of(decimal_of(quoted), quoted)


def decimal_of(quoted: str) -> Decimal:
    """Read a quoted decimal of common size. Raises ValueError with a sentence."""
    if not _QUOTED.fullmatch(quoted):
        raise ValueError(f"{quoted[:40]!r} is not a decimal amount of dollars.")
    return Decimal(quoted)


def nanos_of(dollars: Decimal, quoted: str) -> int:
    """Whole nano-dollars; `quoted` is for the sentence of a ValueError."""
    amount = dollars * NANOS_PER_USD
    if abs(amount) > NANOS_MAX or amount % 1:
        raise ValueError(
            f"{quoted!r} is not a whole number of nano-dollars within a billion dollars."
        )
    return int(amount)


def usd(nanos: int) -> float:
    """Dollars for a response body. The only place where money becomes a float."""
    return nanos / NANOS_PER_USD


def decimal_text(value: int, places: int) -> str:
    """A whole number of units of 10⁻ᵖˡᵃᶜᵉˢ as a decimal: exact, without trailing zeros."""
    whole, fraction = divmod(abs(value), 10**places)
    digits = f"{fraction:0{places}d}".rstrip("0") if places else ""
    text = f"{whole}.{digits}" if digits else str(whole)
    return f"-{text}" if value < 0 else text


def usd_text(nanos: int) -> str:
    """Dollars for people: `$0.000114`, exact, without trailing zeros."""
    return f"{'-' if nanos < 0 else ''}${decimal_text(abs(nanos), 9)}"
