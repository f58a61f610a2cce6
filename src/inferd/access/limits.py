"""How much, and how much at once: the one place where requests are counted.

    enter ─► correct, as often as more is known ─► leave, or undo if nothing happened

A refusal counts nothing. A request's tokens count as the most that it can use until more is
known. `leave` and `undo` may be called twice: what is out is out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from inferd.access.limit_rules import EACH, Applied, Key, Rule, Rules, describe
from inferd.access.window import WINDOW_NS, Counter, Entry, Measure, Refusal
from inferd.clock import Clock
from inferd.errors import BadRequest, TooManyRequests

CONCURRENT_DEFAULT = 200
"""DeepInfra's limit for each model (deepinfra-api 14)."""
PLANS_MAX = 10_000
"""Remembered answers to which limits apply."""
BUSY_SECONDS = 1.0
"""When to ask again if only the end of a running request helps."""


class Held(NamedTuple):
    """A counter that a request entered."""

    key: Key
    counter: Counter
    entry: Entry | None


class Past(NamedTuple):
    """Requests of the last minute that are over."""

    account_id: str
    token_id: str
    model: str
    requests: int
    tokens: int
    unix_ns: int
    """When they were admitted, the last of them."""


class Ticket:
    """One request's place in the counts."""

    __slots__ = ("account_id", "held", "model", "tick", "token_id", "tokens")

    def __init__(self, account_id: str, token_id: str, model: str, tokens: int) -> None:
        self.account_id = account_id
        self.token_id = token_id
        self.model = model
        self.tokens = tokens
        """The most that it can use, as far as is known."""
        self.tick = 0
        """When it was admitted, on the clock of all gateways."""
        self.held: tuple[Held, ...] | None = None
        """None: not counted, or not any more."""


class Limits:
    """The limits of one gateway. No call suspends; the time is the caller's monotonic one."""

    alone = True
    """What is counted lies here alone, so what was before must be told by the ledger."""

    def __init__(self, clock: Clock, concurrent_requests: int = CONCURRENT_DEFAULT) -> None:
        self._clock = clock
        self._default = Rule(EACH, None, EACH, concurrent_requests=concurrent_requests)
        self._counters: dict[Key, Counter] = {}
        self._plans: dict[tuple[str, str, str], tuple[Applied, ...]] = {}
        self._rules = Rules([self._default])
        self._sweep_ns = 0
        self.now_ns: Callable[[], int] = lambda: int(clock.seconds() * 1e9)

    def set_rules(self, rules: Iterable[Rule], past: Iterable[Past] = ()) -> None:
        """Replace all rules; effective at once. A rule like the default replaces it.

        Of the past, the oldest first, the logs are made that no rule asked for before.
        """
        before, self._rules = self._rules, Rules([self._default, *rules])
        self._plans.clear()
        begun: set[Key] = set()
        for each in past:
            names = (each.account_id, each.token_id, each.model)
            logged = {one.key for one in before.applied(*names) if one.bounds.has_rate}
            for key, bounds in self.applied(*names):
                if bounds.has_rate and key not in logged:
                    self._remember(key, each, is_first=key not in begun)
                    begun.add(key)

    def _remember(self, key: Key, past: Past, *, is_first: bool) -> None:
        counter, now_ns = self.counter(key), self.now_ns()
        if is_first:
            # What is left of an earlier rule is in the past too.
            counter.forget(now_ns + 2 * WINDOW_NS)
        age_ns = max(0, self._clock.unix_ns() - past.unix_ns)
        counter.remember(past.requests, past.tokens, now_ns - age_ns)

    async def enter(self, ticket: Ticket) -> None:
        """Count the request, or raise TooManyRequests or BadRequest and count nothing."""
        now_ns = self.now_ns()
        applied = self.applied(ticket.account_id, ticket.token_id, ticket.model)
        for each in applied:
            check_size(each, ticket.tokens)
        worst = self.worst(ticket, applied, now_ns)
        if worst is not None:
            raise refused(applied[worst[0]].key, worst[1])
        self.count(ticket, applied, now_ns)

    def worst(
        self, ticket: Ticket, applied: tuple[Applied, ...], now_ns: int
    ) -> tuple[int, Refusal] | None:
        """The refusal that lasts longest, and whose it is; None if the request may enter."""
        worst: tuple[int, Refusal] | None = None
        for index, (key, bounds) in enumerate(applied):
            refusal = self.counter(key).refusal(bounds, ticket.tokens, now_ns)
            if refusal is not None and (worst is None or _wait(refusal) > _wait(worst[1])):
                worst = (index, refusal)
        return worst

    def count(self, ticket: Ticket, applied: tuple[Applied, ...], now_ns: int) -> None:
        """Count the request without asking."""
        if now_ns >= self._sweep_ns:
            self._sweep(now_ns)
        held: list[Held] = []
        for each in applied:
            counter = self.counter(each.key)
            log = each.bounds.has_rate
            entry = counter.enter(ticket.tokens, now_ns, log=log)
            held.append(Held(each.key, counter, entry))
        ticket.held = tuple(held)

    def correct(self, ticket: Ticket, tokens: int) -> None:
        """From now on the request counts as so many tokens."""
        change = tokens - ticket.tokens
        ticket.tokens = tokens
        if change:
            for _, counter, entry in ticket.held or ():
                if entry is not None:
                    counter.add(entry, 0, change)

    def leave(self, ticket: Ticket) -> None:
        """The request is over; what it used counts on until its minute is over."""
        held, ticket.held = ticket.held, None
        for _, counter, _ in held or ():
            counter.in_flight -= 1

    def undo(self, ticket: Ticket) -> None:
        """The request never happened: it was refused further on."""
        for _, counter, entry in ticket.held or ():
            if entry is not None:
                counter.add(entry, -1, -ticket.tokens)
        self.leave(ticket)

    def applied(self, account_id: str, token_id: str, model: str) -> tuple[Applied, ...]:
        """The limits that a request meets."""
        asked = (account_id, token_id, model)
        plan = self._plans.get(asked)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            plan = self._plans[asked] = self._rules.applied(*asked)
        return plan

    def counter(self, key: Key) -> Counter:
        """The state behind a key, made when it is asked for."""
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = Counter()
        return counter

    @property
    def counters(self) -> dict[Key, Counter]:
        """All that is counted now."""
        return self._counters

    def in_flight(self, account_id: str, model: str) -> int:
        """Requests of the account on the model that are counted now."""
        counter = self._counters.get((account_id, None, model))
        return 0 if counter is None else counter.in_flight

    def _sweep(self, now_ns: int) -> None:
        """Once a minute: forget whoever is away."""
        self._sweep_ns = now_ns + WINDOW_NS
        for key, counter in list(self._counters.items()):
            counter.forget(now_ns)
            if counter.idle:
                del self._counters[key]


def check_size(each: Applied, tokens: int) -> None:
    """Raise BadRequest if the request would not fit the limit at any time."""
    limit = each.bounds.tokens_per_minute
    if limit is not None and tokens > limit:
        words = describe("tokens per minute", limit, each.key)
        raise BadRequest(
            f"This request may use up to {tokens} tokens and can never fit the limit: {words}. "
            "Lower max_tokens or shorten the input.",
            param="max_tokens",
        )


def refused(key: Key, refusal: Refusal) -> TooManyRequests:
    """The error that names the limit that was hit."""
    measure: Measure = refusal.measure
    wait = seconds(refusal)
    when = "" if refusal.wait_ns is None else f" Try again in {wait:g} s."
    return TooManyRequests(
        f"Rate limited: {describe(measure, refusal.limit, key)}.{when}",
        retry_after_seconds=wait,
    )


def seconds(refusal: Refusal) -> float:
    """The wait, rounded up to milliseconds."""
    if refusal.wait_ns is None:
        return BUSY_SECONDS
    return math.ceil(refusal.wait_ns / 1e6) / 1e3


def _wait(refusal: Refusal) -> int:
    return -1 if refusal.wait_ns is None else refusal.wait_ns
