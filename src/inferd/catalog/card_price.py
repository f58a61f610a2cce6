"""What a model costs, as people quote it: the `[price]` table of a card, and what an admin sets."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Annotated, get_args

import msgspec
from msgspec import Meta

from inferd.money import Rate, decimal_of, nanos_of
from inferd.tasks.base import TaskName, Tier, Unit, priced_units

UNITS: tuple[Unit, ...] = get_args(Unit)
MILLION = 1_000_000


class CardPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Quoted decimals: dollars per million tokens or characters, per second, per unit."""

    input: str = "0"
    output: str = "0"
    cached: str | None = None
    """Input tokens served from the prefix cache; absent: the input price."""
    priority: str | None = None
    """What all of it is multiplied with in the tier `priority`, such as "1.5"; absent: no tier."""
    flex: str | None = None
    """The same for the tier `flex`, such as "0.8"."""
    input_characters: str | None = None
    """Per million."""
    input_seconds: str | None = None
    output_seconds: str | None = None
    image_units: str | None = None
    frame_units: str | None = None
    compute_seconds: str | None = None
    uptime_seconds: str | None = None
    payer: str | None = None
    """The account that pays `uptime_seconds`, by id."""
    discount: str | None = None
    """What is taken off everything, such as "0.2" for a fifth."""
    discount_ends: Annotated[datetime, Meta(tz=True)] | None = None
    """When the discount ends; absent: it does not."""

    def units(self) -> dict[Unit, str]:
        """What is quoted besides tokens."""
        return {unit: quote for unit in UNITS if (quote := getattr(self, unit)) is not None}

    def unit(self) -> Unit | None:
        """The unit that is billed besides tokens; None: tokens alone."""
        return next(iter(self.units()), None)

    def unit_rate(self) -> Rate:
        """The rate of that unit; 0 where none is quoted."""
        unit = self.unit()
        if unit is None:
            return Rate(0)
        return _rate(self.units()[unit], 1 if unit == "input_characters" else MILLION)

    def tiers(self) -> dict[Tier, int]:
        """Multipliers in millionths, of the tiers that the model has."""
        quotes: dict[Tier, str | None] = {"priority": self.priority, "flex": self.flex}
        return {tier: _millionths(quote) for tier, quote in quotes.items() if quote is not None}

    def rates(self) -> tuple[Rate, Rate, Rate]:
        """(input, cached, output) as integers."""
        cached = self.cached if self.cached is not None else self.input
        return _rate(self.input), _rate(cached), _rate(self.output)

    def discount_millionths(self) -> int:
        """What is taken off, in millionths. Raises ValueError."""
        taken = 0 if self.discount is None else _millionths(self.discount)
        if taken > MILLION:
            raise ValueError(f"A discount is a fraction in (0, 1]: {self.discount!r}.")
        return taken

    def discount_ends_unix_ns(self) -> int | None:
        """When the discount ends; None: never, or there is none."""
        ends = self.discount_ends
        return None if ends is None else round(ends.timestamp() * MILLION) * 1000

    def costs(self) -> bool:
        """False if every rate is 0."""
        return any((*self.rates(), self.unit_rate()))

    def problems(self, task: TaskName) -> list[str]:
        """What is wrong with it for a model of this task. Raises ValueError for a bad number."""
        allowed, units = priced_units(task), self.units()
        found = [f"{task} is not billed in {other}." for other in units if other not in allowed]
        self.tiers()
        self.rates()
        self.unit_rate()
        if len(units) > 1:
            found.append(f"it is billed in one unit, not in {' and in '.join(units)}.")
        if not self.discount_millionths() and self.discount_ends is not None:
            found.append("discount_ends goes with a discount.")
        if (self.payer is None) != (self.uptime_seconds is None):
            found.append("uptime_seconds and the payer of it go together.")
        return found


def _rate(quote: str, units: int = 1) -> Rate:
    nanos = nanos_of(decimal_of(quote) * units, quote)
    if nanos < 0:
        raise ValueError(f"A price cannot be negative: {quote!r}.")
    return Rate(nanos)


@cache
def _millionths(quote: str) -> int:
    value = decimal_of(quote) * MILLION
    if value != int(value) or not 0 < value <= 1000 * MILLION:
        raise ValueError(f"A multiplier has at most six decimals and is in (0, 1000]: {quote!r}.")
    return int(value)
