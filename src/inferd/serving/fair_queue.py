"""A queue that is fair between accounts: start-time fair queueing over estimated work.

Each account has a virtual time that grows with the work it was served. The account that is
furthest behind goes next, so a thousand jobs of one delay another's first by one job at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from inferd.tasks.base import Tier


class Waiting(Protocol):
    """What can stand in the queue."""

    @property
    def account_id(self) -> str:
        """Whose turn it takes."""
        ...

    @property
    def work(self) -> int:
        """How long a turn it takes, in estimated tokens."""
        ...


class TieredWaiting(Waiting, Protocol):
    """What can stand in the lines of all tiers."""

    @property
    def tier(self) -> Tier:
        """Which line."""
        ...


W = TypeVar("W", bound=Waiting)
T = TypeVar("T", bound=TieredWaiting)

TIERS: tuple[Tier, ...] = ("priority", "default", "flex")
TURN_OF_THE_LAST = 8
"""Every so many turns the lowest tier that waits goes first, so that none waits for ever."""


class FairQueue(Generic[W]):
    """Waiting requests of one model."""

    def __init__(self) -> None:
        self._by_account: dict[str, deque[W]] = {}
        self._virtual: dict[str, float] = {}
        self._now = 0.0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, item: W) -> None:
        """Stand in line."""
        line = self._by_account.get(item.account_id)
        if line is None:
            line = self._by_account[item.account_id] = deque()
            # An account that was away does not bring back credit for the time it did not ask.
            self._virtual[item.account_id] = max(self._virtual.get(item.account_id, 0.0), self._now)
        line.append(item)
        self._size += 1

    def head(self) -> W | None:
        """Who is next, without taking it."""
        account = self._next_account()
        return None if account is None else self._by_account[account][0]

    def first(self, may: Callable[[str], bool]) -> W | None:
        """Who is next of those accounts that may."""
        for account in sorted(self._by_account, key=self._turn):
            if may(account):
                return self._by_account[account][0]
        return None

    def pop(self) -> W | None:
        """Take who is next, and charge its account."""
        item = self.head()
        if item is not None:
            self.take(item)
        return item

    def take(self, item: W) -> None:
        """Take the first one in its account's line, and charge the account."""
        account = item.account_id
        if account == self._next_account():
            self._now = self._virtual[account]
        line = self._by_account[account]
        line.popleft()
        self._size -= 1
        self._virtual[account] += max(item.work, 1)
        if not line:
            del self._by_account[account]
            self._forget_past()

    def remove(self, item: W) -> bool:
        """Leave the line; False if it was not in it."""
        line = self._by_account.get(item.account_id)
        if line is None or item not in line:
            return False
        line.remove(item)
        self._size -= 1
        if not line:
            del self._by_account[item.account_id]
        return True

    def items(self) -> list[W]:
        """Everybody, in no particular order."""
        return [item for line in self._by_account.values() for item in line]

    def _next_account(self) -> str | None:
        if not self._by_account:
            return None
        return min(self._by_account, key=self._turn)

    def _turn(self, account: str) -> tuple[float, str]:
        return self._virtual[account], account

    def _forget_past(self) -> None:
        """Accounts that are away and not ahead of the others need no memory."""
        gone = [
            account
            for account, virtual in self._virtual.items()
            if account not in self._by_account and (virtual <= self._now or not self._by_account)
        ]
        for account in gone:
            del self._virtual[account]


class TieredQueue(Generic[T]):
    """One fair queue for each tier; the higher goes first, but for every eighth turn."""

    def __init__(self) -> None:
        self._lines: dict[Tier, FairQueue[T]] = {tier: FairQueue() for tier in TIERS}
        self._turns = 0
        """Taken since the last one that went against the order."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, item: T) -> None:
        """Stand in line."""
        self._lines[item.tier].push(item)
        self._size += 1

    def head(self) -> T | None:
        """Who is next, without taking it."""
        line = self._next()
        return None if line is None else line.head()

    def first(self, may: Callable[[str], bool]) -> T | None:
        """Who is next of those accounts that may; the higher tier first."""
        found = (line.first(may) for line in self._lines.values() if len(line))
        return next((item for item in found if item is not None), None)

    def pop(self) -> T | None:
        """Take who is next, and charge its account."""
        item = self.head()
        if item is not None:
            self.take(item)
        return item

    def take(self, item: T) -> None:
        """Take the first one in its account's line, and charge the account."""
        self._turns = 0 if self._turns >= TURN_OF_THE_LAST - 1 else self._turns + 1
        self._size -= 1
        self._lines[item.tier].take(item)

    def remove(self, item: T) -> bool:
        """Leave the line; False if it was not in it."""
        removed = self._lines[item.tier].remove(item)
        self._size -= removed
        return removed

    def items(self) -> list[T]:
        """Everybody, in no particular order."""
        if not self._size:
            return []
        return [item for line in self._lines.values() for item in line.items()]

    def _next(self) -> FairQueue[T] | None:
        if not self._size:
            return None
        waiting = [line for tier in TIERS if len(line := self._lines[tier])]
        return waiting[-1] if self._turns >= TURN_OF_THE_LAST - 1 else waiting[0]
