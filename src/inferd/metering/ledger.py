"""The ledger: money set aside before work, booked after it, exact in between.

Balances of accounts with a budget live in memory; only this process spends them. Every change is
made in the event loop without an await in the middle, so two requests never see the same dollar.

    balance = credit − spent − outstanding reservations, never below 0
"""

from __future__ import annotations

import asyncio

import msgspec

from inferd.clock import Clock
from inferd.errors import PaymentRequired
from inferd.money import usd_text
from inferd.storage import accounts, entries, reservations
from inferd.storage.database import Database
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.rows import EntryRow, LedgerWrite, Release, ReservationRow, Reserve, Settle


class _Purse(msgspec.Struct):
    """An account with a budget."""

    credit: int
    spent: int = 0
    outstanding: int = 0

    @property
    def balance(self) -> int:
        return self.credit - self.spent - self.outstanding


class Ledger:
    """Reserve, settle, release. All amounts are nano-dollars."""

    def __init__(self, writer: LedgerWriter, database: Database, clock: Clock) -> None:
        self.recovered = 0
        """Reservations of a dead process that `start` released."""
        self._writer = writer
        self._database = database
        self._clock = clock
        self._purses: dict[str, _Purse] = {}
        self._held: dict[str, tuple[str, int]] = {}
        """Request id → (account, nanos)."""
        self._settling: dict[str, asyncio.Future[None]] = {}
        """Settlements under way, so that a second one waits instead of booking twice."""
        self._pending: set[asyncio.Future[None]] = set()

    @property
    def healthy(self) -> bool:
        """False while usage cannot be recorded; then nothing may be served."""
        return self._writer.healthy

    async def start(self) -> None:
        """Replay the journal, release what a dead process held, load balances."""
        self._writer.start()
        async with self._database.writing() as connection:
            held = await reservations.every(connection)
            await reservations.clear(connection)
        self.recovered = len(held)
        async with self._database.reading() as connection:
            known = await accounts.every(connection)
            spent = await entries.spent_by_account(connection)
        for account in known:
            if account.credit_nanos is not None:
                self._purses[account.id] = _Purse(account.credit_nanos, spent.get(account.id, 0))

    def reserve(self, account_id: str, request_id: str, nanos: int) -> None:
        """Set money aside, or raise PaymentRequired. Nothing for an account without a budget."""
        purse = self._purses.get(account_id)
        if purse is None:
            return
        if nanos > purse.balance:
            raise PaymentRequired(
                f"The balance is {usd_text(max(purse.balance, 0))}; this request may cost up to "
                f"{usd_text(nanos)}. Lower max_tokens or add credit."
            )
        purse.outstanding += nanos
        self._held[request_id] = (account_id, nanos)
        row = ReservationRow(request_id, account_id, nanos, self._clock.unix_ns())
        self._write_soon(Reserve(row))

    def shrink(self, request_id: str, nanos: int) -> None:
        """Keep at most `nanos` aside from now on."""
        account_id, held = self._held.get(request_id, ("", 0))
        if nanos < held:
            self._purses[account_id].outstanding -= held - nanos
            self._held[request_id] = (account_id, nanos)

    def release(self, request_id: str) -> None:
        """Give all of it back: the request never ran."""
        if self._let_go(request_id):
            self._write_soon(Release(request_id))

    def settle(self, entry: EntryRow) -> asyncio.Future[None]:
        """Book the entry; the future resolves when it is committed. Twice books once.

        Whoever awaits it shields it: the booking goes on when he is cancelled.
        """
        under_way = self._settling.get(entry.request_id)
        if under_way is None:
            held = self._let_go(entry.request_id)
            purse = self._purses.get(entry.account_id)
            if purse is not None:
                purse.spent += entry.cost_nanos
            under_way = self._writer.submit(Settle(entry, held=held))
            self._settling[entry.request_id] = under_way
            under_way.add_done_callback(lambda _: self._settling.pop(entry.request_id, None))
        return under_way

    def balance_nanos(self, account_id: str) -> int | None:
        """What can still be reserved; None without a budget."""
        purse = self._purses.get(account_id)
        return None if purse is None else purse.balance

    def outstanding_nanos(self, account_id: str) -> int:
        """What is set aside for running requests."""
        purse = self._purses.get(account_id)
        return 0 if purse is None else purse.outstanding

    async def set_credit(self, account_id: str, nanos: int | None) -> None:
        """Set the account's prepaid credit; None: no budget."""
        async with self._database.writing() as connection:
            await accounts.set_credit(connection, account_id, nanos)
            spent = await entries.spent_by_account(connection)
        if nanos is None:
            self._purses.pop(account_id, None)
            return
        purse = self._purses.get(account_id)
        if purse is None:
            self._purses[account_id] = _Purse(nanos, spent.get(account_id, 0))
        else:
            purse.credit = nanos

    def _let_go(self, request_id: str) -> bool:
        account_id, held = self._held.pop(request_id, ("", -1))
        purse = self._purses.get(account_id)
        if purse is not None:
            purse.outstanding -= held
        return held >= 0

    def _write_soon(self, write: LedgerWrite) -> None:
        """Commit with the next group; memory is what decides, the row is for a crash."""
        done = self._writer.submit(write)
        self._pending.add(done)
        done.add_done_callback(self._written)

    def _written(self, done: asyncio.Future[None]) -> None:
        self._pending.discard(done)
        # A reservation row that could not be written costs nothing; `healthy` tells.
        if not done.cancelled():
            done.exception()
