"""Purses: each budget that a request is paid from, in the memory of this process.

    free = allowed − outstanding, never below 0 by a reservation

With one gateway, allowed is limit − spent. With several it is what this gateway has leased of
that, see `leases`. A purse without a limit is counted all the same, so that a limit which is set
later knows what runs.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from msgspec import field

from inferd.errors import PaymentRequired
from inferd.metering.payer import Payer
from inferd.money import usd_text
from inferd.storage.ledger_statements import keys_of, month_of
from inferd.storage.purses import Kind, Limits

_SENTENCES: dict[str, str] = {
    "credit": "The balance is {balance}",
    "month": "The balance of the account's monthly limit of {limit} is {balance}",
    "token": "The balance of the token's monthly limit of {limit} is {balance}",
    "jwt": "The balance of the scoped JWT's spending limit of {limit} is {balance}",
}
_REMEDIES: dict[str, str] = {
    "credit": "Lower max_tokens or add credit.",
    "month": "Lower max_tokens, wait for the next month (UTC) or have the limit raised: "
    "/payment/config tells who set it.",
    "token": "Lower max_tokens, raise the limit or wait for the next month (UTC).",
    "jwt": "Lower max_tokens or ask for another JWT.",
}


class Purse(msgspec.Struct):
    """One budget. Nano-dollars throughout."""

    key: str
    kind: Kind
    limit: int | None
    """None: no limit."""
    allowed: int
    """What is not spent yet, as far as this gateway may decide alone."""
    leased: bool = False
    """`allowed` is a lease."""
    outstanding: int = 0
    """Reserved for running requests."""
    promised: int = 0
    """Leased for requests that are about to reserve it: no recall takes it."""
    pins: int = 0
    """Requests that hold this object: it stays in memory until they are committed."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its lease is changed: what was leased is known here before it is given back."""

    @property
    def is_leasing(self) -> bool:
        """True if it must stay in memory for what it has leased."""
        return self.leased and (self.allowed != 0 or self.promised != 0)

    @property
    def blocks(self) -> bool:
        """True if nothing may run, not even what is free."""
        return self.limit is not None and self.limit <= 0 and self.kind != "credit"

    @property
    def free(self) -> int:
        """What can still be reserved; below 0 after a limit was lowered."""
        return self.allowed - self.outstanding

    def is_short(self, nanos: int) -> bool:
        """True if a request that may cost so much is refused; a limit of 0 refuses free ones."""
        limit = self.limit
        if limit is None:
            return False
        return nanos > self.allowed - self.outstanding or self.blocks

    def set_limit(self, limit: int | None) -> None:
        """From now on; what is reserved stays reserved."""
        if not self.leased:
            self.allowed += (limit or 0) - (self.limit or 0)
        self.limit = limit

    def hold(self, nanos: int) -> None:
        """Reserve."""
        self.outstanding += nanos
        self.pins += 1

    def pay(self, held: int, cost: int) -> int:
        """Spend `cost` of what was held; returns what is taken off `allowed`."""
        self.outstanding -= held
        taken = min(cost, max(self.allowed, 0)) if self.leased else cost
        self.allowed -= taken
        return taken

    def refusal(self, nanos: int, balance: int) -> PaymentRequired:
        """Why a request of so much is refused, with the balance."""
        told = _SENTENCES[self.kind].format(
            balance=usd_text(max(balance, 0)), limit=usd_text(self.limit or 0)
        )
        cost = f"this request may cost up to {usd_text(nanos)}"
        return PaymentRequired(f"{told}; {cost}. {_REMEDIES[self.kind]}")


class Plan(NamedTuple):
    """A payer's purses during one month."""

    begins_unix_ns: int
    ends_unix_ns: int
    purses: tuple[Purse, ...]

    def covers(self, unix_ns: int) -> bool:
        """True if the moment lies in this month."""
        return self.begins_unix_ns <= unix_ns < self.ends_unix_ns

    def short(self, nanos: int) -> Purse | None:
        """The tightest purse that refuses; None if all have room."""
        found: Purse | None = None
        for purse in self.purses:
            if purse.is_short(nanos) and (found is None or purse.free < found.free):
                found = purse
        return found


class Hold(NamedTuple):
    """What one request has reserved, of each of its purses."""

    purses: tuple[Purse, ...]
    nanos: int
    written: bool
    """It has a row."""


def month_span(unix_ns: int) -> tuple[int, int]:
    """[begin, end) of the moment's month in UTC."""
    at = datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC)
    begin = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    years, month = divmod(begin.month, 12)
    end = begin.replace(year=begin.year + years, month=month + 1)
    return round(begin.timestamp()) * 1_000_000_000, round(end.timestamp()) * 1_000_000_000


def limits_of(payer: Payer, limits: Limits, unix_ns: int) -> dict[str, tuple[Kind, int | None]]:
    """Key → kind and limit, of all purses of a payer in the moment's month."""
    keys = keys_of(payer.account_id, payer.token_id, payer.jwt_id, month_of(unix_ns))
    kinds: tuple[Kind, ...] = ("credit", "month", "token", "jwt")
    return {
        key: (kind, limits.of(kind, payer.jwt_limit_nanos))
        for key, kind in zip(keys, kinds, strict=False)
    }
