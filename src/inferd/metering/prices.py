"""Prices: what one million units cost, with a version that ledger entries point to."""

from __future__ import annotations

import msgspec

from inferd.money import Rate


class Price(msgspec.Struct, frozen=True):
    """One version of a model's price."""

    id: int
    """Row id in `prices`: the version that an entry stores."""
    model: str
    input: Rate
    cached: Rate
    output: Rate
