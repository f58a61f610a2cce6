"""Days and months of UTC. A day is a whole number since 1970, a month is `YYYY-MM`."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

DAY_SECONDS = 86_400
DAY_NS = DAY_SECONDS * 1_000_000_000
YEAR_MAX = 2199
_EPOCH = date(1970, 1, 1)
_MONTH = re.compile(r"(\d{4})[.-](\d{2})")


class Month(NamedTuple):
    """A calendar month."""

    year: int
    month: int

    def __str__(self) -> str:
        """`2026-11`."""
        return f"{self.year:04d}-{self.month:02d}"

    def plus(self, months: int) -> Month:
        """So many months later."""
        index = self.year * 12 + self.month - 1 + months
        return Month(index // 12, index % 12 + 1)

    @property
    def first_day(self) -> int:
        """Its first day."""
        return (date(self.year, self.month, 1) - _EPOCH).days

    @property
    def after_day(self) -> int:
        """The first day of the next month."""
        return self.plus(1).first_day


def read_month(text: str) -> Month:
    """Read `2026-11` or `2026.11`. Raises ValueError with a sentence."""
    found = _MONTH.fullmatch(text)
    month = Month(int(found[1]), int(found[2])) if found and found[0].isascii() else Month(0, 0)
    if not (1970 <= month.year <= YEAR_MAX and 1 <= month.month <= 12):
        raise ValueError(f"{text[:32]!r} is not a month of the form YYYY-MM.")
    return month


def month_of_day(day: int) -> Month:
    """The month that a day lies in."""
    at = _EPOCH + timedelta(days=day)
    return Month(at.year, at.month)


def month_at(unix_seconds: int) -> Month:
    """The month of a moment."""
    return month_of_day(unix_seconds // DAY_SECONDS)


def day_text(day: int) -> str:
    """`2026-11-25`."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def moment_text(unix_ns: int) -> str:
    """RFC 3339, in whole seconds of UTC."""
    at = datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
