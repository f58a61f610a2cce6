"""Limits against a slow model of themselves: any order of entering, correcting, leaving, time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.access.limit_rules import EACH, Rule, Rules
from inferd.access.limits import Limits, Past, Ticket
from inferd.access.window import TICK_NS, WINDOW_NS, Bounds
from inferd.clock import ManualClock
from inferd.errors import BadRequest, TooManyRequests

SECOND = 1_000_000_000
REQUESTS, TOKENS, CONCURRENT = 5, 100, 4


def run(limits: Limits, ticket: Ticket) -> None:
    """`enter` never suspends, so that a warm request costs no turn of the loop."""
    with pytest.raises(StopIteration):
        limits.enter(ticket).send(None)


def refuse(limits: Limits, ticket: Ticket) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as caught:
        limits.enter(ticket).send(None)
    return caught.value


def limited(clock: ManualClock, **bounds: int) -> Limits:
    limits = Limits(clock)
    limits.set_rules([msgspec.structs.replace(Rule("a", None, "m"), **bounds)])
    return limits


def ticket(tokens: int = 0, account: str = "a", model: str = "m", token: str = "t") -> Ticket:
    return Ticket(account, token, model, tokens)


class TestThePast:
    """What was admitted before a rule, or before this process, counts in its logs."""

    def test_it_counts_until_its_minute_is_over(self) -> None:
        clock = ManualClock()
        limits, now = Limits(clock), clock.unix_ns()
        rule = Rule("a", None, "m", requests_per_minute=3, tokens_per_minute=50)
        ago = [Past("a", "t", "m", 1, 10, now - 40 * SECOND), Past("a", "t", "m", 1, 20, now)]
        limits.set_rules([rule], [*ago, Past("b", "t", "m", 9, 90, now)])
        assert "tokens" in str(refuse(limits, ticket(21)))
        run(limits, ticket(20))
        assert "3 requests per minute" in str(refused := refuse(limits, ticket()))
        assert refused.retry_after_seconds == pytest.approx(20, abs=0.01)
        clock.advance(20.01)
        run(limits, ticket(10))
        refuse(limits, ticket())

    def test_what_is_logged_already_is_not_logged_again(self) -> None:
        clock = ManualClock()
        limits = limited(clock, requests_per_minute=2)
        run(limits, ticket())
        past = [Past("a", "t", "m", 1, 0, clock.unix_ns())]
        limits.set_rules([Rule("a", None, "m", requests_per_minute=2)], past)
        run(limits, ticket())
        # Nor is what an earlier rule has left.
        limits.set_rules([])
        limits.set_rules(
            [Rule("a", None, "m", requests_per_minute=3)], [past[0]._replace(requests=2)]
        )
        run(limits, ticket())
        refuse(limits, ticket())


class TestConcurrency:
    def test_the_limit_is_named_and_a_refusal_counts_nothing(self) -> None:
        limits = Limits(ManualClock(), 2)
        inside = ticket()
        run(limits, inside)
        run(limits, ticket())
        assert "2 concurrent requests of this account on m" in str(refuse(limits, ticket()))
        run(limits, ticket(account="b"))
        run(limits, ticket(model="other"))
        limits.leave(inside)
        limits.leave(inside)
        run(limits, ticket())
        refuse(limits, ticket())

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=80))
    def test_it_ends_at_zero_whatever_happened(self, steps: list[tuple[str, bool]]) -> None:
        limits, inside = Limits(ManualClock(), 3), {name: list[Ticket]() for name in "abc"}
        for account, enters in steps:
            if enters:
                asked = ticket(account=account)
                if len(inside[account]) == 3:
                    refuse(limits, asked)
                else:
                    run(limits, asked)
                    inside[account].append(asked)
            elif inside[account]:
                limits.leave(inside[account].pop())
            assert limits.in_flight(account, "m") == len(inside[account]) <= 3


class TestRates:
    def test_sixty_a_minute_are_sixty_in_any_minute(self) -> None:
        clock = ManualClock()
        limits = limited(clock, requests_per_minute=60)
        clock.advance(59.9)
        for _ in range(60):
            run(limits, ticket())
        clock.advance(0.2)
        error = refuse(limits, ticket())
        assert "60 requests per minute of this account on m" in str(error)
        assert error.retry_after_seconds is not None
        assert 59.8 <= error.retry_after_seconds <= 59.81

    def test_what_was_set_aside_and_not_used_is_free_at_once(self) -> None:
        clock = ManualClock()
        limits = limited(clock, tokens_per_minute=100)
        first = ticket(80)
        run(limits, first)
        refuse(limits, ticket(30))
        limits.correct(first, 70)
        run(limits, ticket(30))
        limits.correct(first, 5)
        limits.leave(first)
        run(limits, ticket(65))
        refuse(limits, ticket(1))

    def test_what_can_never_fit_is_told_so(self) -> None:
        limits = limited(ManualClock(), tokens_per_minute=100)
        with pytest.raises(BadRequest, match=r"up to 101 tokens.*100 tokens per minute"):
            limits.enter(ticket(101)).send(None)
        run(limits, ticket(100))

    def test_what_was_undone_never_happened(self) -> None:
        limits = limited(ManualClock(), requests_per_minute=1, tokens_per_minute=10)
        first = ticket(10)
        run(limits, first)
        limits.undo(first)
        limits.undo(first)
        run(limits, ticket(10))
        refuse(limits, ticket())

    def test_a_correction_after_its_minute_changes_nothing(self) -> None:
        clock = ManualClock()
        limits = limited(clock, tokens_per_minute=10)
        old = ticket(10)
        run(limits, old)
        clock.advance(61)
        run(limits, ticket(10))
        limits.correct(old, 1)
        limits.leave(old)
        refuse(limits, ticket(1))

    def test_the_longest_wait_is_the_one_that_is_told(self) -> None:
        clock = ManualClock()
        limits = Limits(clock)
        limits.set_rules(
            [Rule("a", requests_per_minute=1), Rule("a", None, "m", requests_per_minute=1)]
        )
        run(limits, ticket(model="other"))
        clock.advance(61)
        run(limits, ticket())
        clock.advance(10)
        error = refuse(limits, ticket())
        assert error.retry_after_seconds == pytest.approx(50, abs=0.01)


class TestRules:
    def test_the_particular_replaces_the_general_and_the_wider_holds_beside_it(self) -> None:
        rules = Rules(
            [
                Rule(EACH, None, EACH, concurrent_requests=200, requests_per_minute=9),
                Rule("a", None, EACH, concurrent_requests=500),
                Rule("a", None, None, tokens_per_minute=1000),
                Rule("a", "t", None, requests_per_minute=3),
                Rule(None, None, "m", requests_per_minute=7),
            ]
        )
        found = {each.key: each.bounds for each in rules.applied("a", "t", "m")}
        assert found == {
            ("a", None, "m"): Bounds(500, 9, None),
            ("a", None, None): Bounds(None, None, 1000),
            ("a", "t", None): Bounds(None, 3, None),
            (None, None, "m"): Bounds(None, 7, None),
        }
        assert dict(rules.applied("b", "u", "n")) == {("b", None, "n"): Bounds(200, 9, None)}

    def test_what_an_account_sets_for_itself_only_narrows(self) -> None:
        rules = Rules(
            [
                Rule(EACH, EACH, None, requests_per_minute=10),
                Rule("a", EACH, None, requests_per_minute=99, tokens_per_minute=5, own=True),
                Rule("a", "t", None, requests_per_minute=3, own=True),
            ]
        )
        assert dict(rules.applied("a", "t", "m")) == {("a", "t", None): Bounds(None, 3, 5)}
        assert dict(rules.applied("a", "u", "m")) == {("a", "u", None): Bounds(None, 10, 5)}
        assert dict(rules.applied("b", "v", "m")) == {("b", "v", None): Bounds(None, 10, None)}

    def test_a_narrow_limit_and_a_wide_one_hold_together(self) -> None:
        limits = Limits(ManualClock())
        limits.set_rules(
            [Rule("a", requests_per_minute=3), Rule("a", "t", None, requests_per_minute=2)]
        )
        run(limits, ticket())
        run(limits, ticket())
        assert "2 requests per minute of this token" in str(refuse(limits, ticket()))
        run(limits, ticket(token="u"))
        assert "3 requests per minute of this account" in str(refuse(limits, ticket(token="u")))

    def test_a_new_limit_is_effective_at_once_and_keeps_the_count(self) -> None:
        limits = limited(ManualClock(), requests_per_minute=5)
        for _ in range(3):
            run(limits, ticket())
        limits.set_rules([Rule("a", None, "m", requests_per_minute=3)])
        refuse(limits, ticket())

    def test_whoever_is_away_is_forgotten(self) -> None:
        clock = ManualClock()
        limits = Limits(clock)
        limits.set_rules([Rule(EACH, None, EACH, requests_per_minute=5)])
        for number in range(1000):
            asked = ticket(account=str(number))
            run(limits, asked)
            limits.leave(asked)
        assert len(limits.counters) == 1000
        clock.advance(61)
        run(limits, ticket())
        assert len(limits.counters) == 1


@dataclass
class Admitted:
    """What the slow model knows of one request."""

    ticket: Ticket
    at_ns: int
    tokens: int
    inside: bool = True
    undone: bool = field(default=False)


class AnySequence(RuleBasedStateMachine):
    """The model keeps every request for ever and adds up what lies in the window."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.limits = limited(
            self.clock,
            concurrent_requests=CONCURRENT,
            requests_per_minute=REQUESTS,
            tokens_per_minute=TOKENS,
        )
        self.all: list[Admitted] = []

    def now_ns(self) -> int:
        return int(self.clock.seconds() * 1e9)

    def window(self, now_ns: int) -> list[Admitted]:
        """Whose tick is not a minute old."""
        return [
            each
            for each in self.all
            if not each.undone and (each.at_ns // TICK_NS + 1) * TICK_NS + WINDOW_NS > now_ns
        ]

    def fits(self, tokens: int, now_ns: int) -> bool:
        recent = self.window(now_ns)
        return (
            sum(each.inside for each in self.all) < CONCURRENT
            and len(recent) < REQUESTS
            and sum(each.tokens for each in recent) + tokens <= TOKENS
        )

    @rule(seconds=st.floats(0, 45))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(tokens=st.integers(0, 80))
    def enter(self, tokens: int) -> None:
        asked, now_ns = ticket(tokens), self.now_ns()
        if self.fits(tokens, now_ns):
            run(self.limits, asked)
            self.all.append(Admitted(asked, now_ns, tokens))
            return
        error = refuse(self.limits, asked)
        if sum(each.inside for each in self.all) >= CONCURRENT:
            return
        # The wait is the shortest after which it would fit, rounded up to a millisecond.
        assert error.retry_after_seconds is not None
        wait_ns = math.ceil(error.retry_after_seconds * 1e9)
        freed = [e for e in self.window(now_ns)]
        assert freed
        assert self.fits(tokens, now_ns + wait_ns)
        assert not self.fits(tokens, now_ns + wait_ns - 2_000_000)

    @precondition(lambda self: any(each.inside for each in self.all))
    @rule(data=st.data())
    def correct(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from([e for e in self.all if e.inside]))
        each.tokens = data.draw(st.integers(0, each.tokens))
        self.limits.correct(each.ticket, each.tokens)

    @precondition(lambda self: any(each.inside for each in self.all))
    @rule(data=st.data(), undone=st.booleans())
    def end(self, data: st.DataObject, undone: bool) -> None:
        each = data.draw(st.sampled_from([e for e in self.all if e.inside]))
        each.inside, each.undone = False, undone
        (self.limits.undo if undone else self.limits.leave)(each.ticket)

    @invariant()
    def never_more_than_the_limit_in_any_minute(self) -> None:
        for last in self.all:
            minute = [
                each
                for each in self.all
                if not each.undone and last.at_ns - WINDOW_NS < each.at_ns <= last.at_ns
            ]
            assert len(minute) <= REQUESTS
            assert sum(each.tokens for each in minute) <= TOKENS
        inside = sum(each.inside for each in self.all)
        assert self.limits.in_flight("a", "m") == inside <= CONCURRENT

    def teardown(self) -> None:
        for each in self.all:
            self.limits.leave(each.ticket)
        assert self.limits.in_flight("a", "m") == 0
        self.clock.advance(61)
        for counter in self.limits.counters.values():
            counter.forget(self.now_ns())
            assert counter.idle
            assert (counter.requests, counter.tokens) == (0, 0)


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
