"""Money in any order of events: what was set aside and what was spent always add up."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.errors import PaymentRequired
from inferd.metering.payer import Payer
from inferd.storage.ledger_statements import month_of, purse_keys
from tests.unit.metering.test_purses import DAY, OTHER, PAYER, new_books
from tests.unit.storage.test_ledger_writer import entry


@dataclass
class _Running:
    payer: Payer
    held: int
    created_unix_ns: int


PAYERS = [PAYER, OTHER, Payer("other", "tok3"), Payer("acc", "tok", "jwt", 700)]
amounts = st.integers(0, 1000)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: memory and rows agree with a ledger kept by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.books = new_books(Path(self.folder.name))
        self.running: dict[str, _Running] = {}
        self.spent: Counter[str] = Counter()
        self.limits: dict[str, int | None] = {}
        self.number = 0
        self.runner.run(self.books.open())

    def teardown(self) -> None:
        self.runner.run(self.books.close())
        self.runner.close()
        self.folder.cleanup()

    def _keys(self, payer: Payer, at_unix_ns: int) -> tuple[str, ...]:
        row = entry(
            0,
            account_id=payer.account_id,
            token_id=payer.token_id,
            jwt_id=payer.jwt_id,
            created_unix_ns=at_unix_ns,
        )
        return purse_keys(row)

    def _left(self, key: str) -> int | None:
        """By hand: what a purse has left. None: no limit."""
        kind, _, rest = key.partition(":")
        limit = 700 if kind == "jwt" else self.limits.get(f"{kind}:{rest.partition(':')[0]}")
        if limit is None:
            return None
        held = sum(
            one.held
            for one in self.running.values()
            if key in self._keys(one.payer, one.created_unix_ns)
        )
        return limit - self.spent[key] - held

    @rule(payer=st.sampled_from(PAYERS), nanos=amounts)
    def reserve(self, payer: Payer, nanos: int) -> None:
        now = self.books.clock.unix_ns()
        keys = self._keys(payer, now)
        left = [(key, self._left(key)) for key in keys]
        blocked = any(
            self.limits.get(key.rpartition(":")[0]) == 0 for key in keys if key[0] in "mt"
        )
        expected = not blocked and all(room is None or nanos <= room for _, room in left)
        self.number += 1
        request_id = entry(self.number).request_id
        try:
            self.runner.run(self.books.ledger.reserve(payer, request_id, nanos, at_unix_ns=now))
        except PaymentRequired:
            assert not expected
        else:
            assert expected
            self.running[request_id] = _Running(payer, nanos, now)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), nanos=amounts)
    def shrink(self, data: st.DataObject, nanos: int) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.running)))
        self.books.ledger.shrink(request_id, nanos)
        one = self.running[request_id]
        one.held = min(one.held, nanos)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), share=st.floats(0, 1), twice=st.booleans())
    def settle(self, data: st.DataObject, share: float, twice: bool) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.running)))
        one = self.running.pop(request_id)
        cost = int(one.held * share)
        row = entry(
            int(request_id[1:]),
            account_id=one.payer.account_id,
            token_id=one.payer.token_id,
            jwt_id=one.payer.jwt_id,
            cost_nanos=cost,
            created_unix_ns=one.created_unix_ns,
        )

        async def settling() -> None:
            assert await self.books.ledger.settle(row)
            if twice:
                assert not await self.books.ledger.settle(row)

        self.runner.run(settling())
        for key in self._keys(one.payer, one.created_unix_ns):
            self.spent[key] += cost

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.running)))

        async def releasing() -> None:
            self.books.ledger.release(request_id)
            self.books.ledger.release(request_id)

        self.runner.run(releasing())
        del self.running[request_id]

    @rule(
        kind=st.sampled_from(["credit", "month", "token"]), limit=st.none() | st.integers(0, 3000)
    )
    def limit(self, kind: str, limit: int | None) -> None:
        ledger = self.books.ledger
        change = {
            "credit": lambda: ledger.set_credit("acc", limit),
            "month": lambda: ledger.set_monthly_limit("acc", limit),
            "token": lambda: ledger.set_token_monthly_limit("acc", "tok", limit),
        }[kind]
        self.runner.run(change())
        self.limits[f"{kind}:{'tok' if kind == 'token' else 'acc'}"] = limit

    @rule(days=st.sampled_from([1, 16, 31]))
    def time_passes(self, days: int) -> None:
        self.books.clock.advance(days * DAY)

    @rule()
    def dies_and_starts_again(self) -> None:
        self.runner.run(self.books.close())
        self.running.clear()
        self.runner.run(self.books.open())

    @invariant()
    def what_is_free_is_what_the_book_kept_by_hand_says(self) -> None:
        month = month_of(self.books.clock.unix_ns())
        for purse in self.books.ledger.in_memory():
            is_of_now = purse.kind in ("credit", "jwt") or purse.key.endswith(month)
            left = self._left(purse.key)
            if is_of_now and left is not None:
                assert purse.free == left, purse.key

    @invariant()
    def the_rows_sum_up(self) -> None:
        assert self.books.rows() == {key: nanos for key, nanos in self.spent.items() if nanos}


AnyOrder.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
