"""The ledger: money set aside before work, booked after it, exact in between.

Every budget is a purse (see `purses`) in the memory of this process. A request reserves from all
of its purses or from none, in the event loop and without an await in the middle, so two requests
never see the same dollar. Only the first request of a payer in a month reads the database.

With several gateways a purse holds what this one has leased, see `leases`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial

from inferd import ids
from inferd.clock import Clock
from inferd.errors import NotFound, Unavailable
from inferd.metering import credit
from inferd.metering.leases import Leases
from inferd.metering.payer import Payer
from inferd.metering.purses import Hold, Plan, Purse, limits_of, month_span
from inferd.storage import accounts, changes, payers, reservations
from inferd.storage import purses as stored
from inferd.storage.changes import Change
from inferd.storage.database import AsyncConnection, Database
from inferd.storage.ledger_statements import keys_of, month_of, purse_keys
from inferd.storage.rows import (
    EntryRow,
    GrantRow,
    LedgerWrite,
    Release,
    ReservationRow,
    Reserve,
    Settle,
)
from inferd.storage.writers import Writer

PURSES_MAX = 30_000
"""In memory; beyond it those are forgotten that nothing running needs."""
FORGET_SECONDS = 10.0
"""At least so long between two times of forgetting."""
Also = Callable[[AsyncConnection], Awaitable[None]]
"""What is written in the transaction of a change."""


class Ledger:
    """Reserve, settle, release. All amounts are nano-dollars."""

    def __init__(self, writer: Writer, database: Database, clock: Clock, gateway: str = "") -> None:
        self.recovered = 0
        """Reservations of a dead process that `start` released."""
        self.gateway = gateway
        """The name of this one of several gateways; "": it is alone."""
        self.epoch_unix_ns = clock.unix_ns()
        """Tells this life of the gateway from others."""
        self._writer = writer
        self._database = database
        self._clock = clock
        self._purses: dict[str, Purse] = {}
        self._leases = Leases(database, gateway, lambda: self._purses) if gateway else None
        self._plans: dict[Payer, Plan] = {}
        self._loading: dict[tuple[Payer, str], asyncio.Task[Plan]] = {}
        self._generation = 0
        """Changes when what is being read from the database may be old news."""
        self._forgotten_seconds = -FORGET_SECONDS
        self._held: dict[str, Hold] = {}
        self._settling: dict[str, asyncio.Future[bool]] = {}
        """Settlements under way, so that a second one waits instead of booking twice."""
        self._pending: set[asyncio.Future[bool]] = set()

    @property
    def healthy(self) -> bool:
        """False while usage cannot be recorded; then nothing may be served."""
        return self._writer.healthy

    @property
    def behind(self) -> bool:
        """True while the journal holds entries that the database does not have."""
        return self._writer.behind

    async def start(self) -> None:
        """Replay the journal, release what a dead process of this gateway held."""
        self._writer.start()
        await self._writer.recovered()
        async with self._database.writing() as connection:
            self.recovered = await reservations.clear(connection, self.gateway)
        if self._leases is not None:
            await self._leases.start()
            self.epoch_unix_ns = self._leases.epoch_unix_ns

    async def close(self) -> None:
        """Give back what is leased. The writer is closed after this."""
        if self._leases is not None:
            await self._leases.close()

    async def reserve(
        self, payer: Payer, request_id: str, nanos: int, *, at_unix_ns: int | None = None
    ) -> None:
        """Set money aside, or raise PaymentRequired with the balance and the budget that was hit.

        `at_unix_ns` is the entry's `created_unix_ns`: its month pays. Does not suspend once the
        payer is known. Cancelled while it waits, it has taken nothing.
        """
        now = self._clock.unix_ns() if at_unix_ns is None else at_unix_ns
        plan = self._plans.get(payer)
        if plan is None or not plan.covers(now):
            plan = await self._plan(payer, now)
        while (short := plan.short(nanos)) is not None:
            if self._leases is None or short.blocks:
                raise short.refusal(nanos, short.free)
            await self._leases.refill(short, payer, nanos)
            plan = self._plans.get(payer, plan)
        finite = False
        for purse in plan.purses:
            purse.hold(nanos)
            finite = finite or purse.limit is not None
        self._held[request_id] = Hold(plan.purses, nanos, finite)
        if finite:
            row = ReservationRow(request_id, payer.account_id, nanos, now, self.gateway)
            self._write_soon(Reserve(row))

    def shrink(self, request_id: str, nanos: int) -> None:
        """Keep at most `nanos` aside from now on."""
        hold = self._held.get(request_id)
        if hold is not None and nanos < hold.nanos:
            for purse in hold.purses:
                purse.outstanding -= hold.nanos - nanos
            self._held[request_id] = hold._replace(nanos=nanos)

    def release(self, request_id: str) -> None:
        """Give all of it back: the request never ran."""
        hold = self._held.pop(request_id, None)
        if hold is None:
            return
        for purse in hold.purses:
            purse.outstanding -= hold.nanos
            purse.pins -= 1
        if hold.written:
            self._write_soon(Release(request_id))

    def settle(self, entry: EntryRow) -> asyncio.Future[bool]:
        """Book the entry; the future resolves when it is committed. Twice books once.

        It gives False if the request was booked before. Whoever awaits it shields it: the booking
        goes on when he is cancelled.
        """
        under_way = self._settling.get(entry.request_id)
        if under_way is None:
            hold = self._held.pop(entry.request_id, None) or self._nothing_held(entry)
            cost = entry.cost_nanos
            paid = [(purse, purse.pay(hold.nanos, cost)) for purse in hold.purses]
            leases = tuple((purse.key, nanos) for purse, nanos in paid if purse.leased and nanos)
            write = Settle(entry, held=hold.written, gateway=self.gateway, leases=leases)
            under_way = self._writer.submit(write)
            self._settling[entry.request_id] = under_way
            under_way.add_done_callback(partial(self._settled, entry.request_id, paid))
        return under_way

    def balance_nanos(self, account_id: str) -> int | None:
        """What is left of an account's credit; None without, or before its first request."""
        purse = self._purses.get(f"credit:{account_id}")
        return None if purse is None or purse.limit is None else purse.free

    def outstanding_nanos(self, account_id: str) -> int:
        """What is set aside for running requests."""
        purse = self._purses.get(f"credit:{account_id}")
        return 0 if purse is None else purse.outstanding

    async def refusals(self, account_ids: Collection[str]) -> dict[str, str]:
        """Account → why it may spend nothing; those are left out that may. Raises Unavailable."""
        async with self._database.reading() as connection:
            return await payers.refusals(connection, account_ids)

    @property
    def holding(self) -> frozenset[str]:
        """The requests that money is set aside for now."""
        return frozenset(self._held)

    def in_memory(self) -> tuple[Purse, ...]:
        """The purses that are known now."""
        return tuple(self._purses.values())

    async def set_credit(self, account_id: str, nanos: int | None) -> None:
        """Make the account's grants sum up to this; None: no budget, whatever was granted."""
        async with self.changing(account_id) as connection:
            if nanos is None:
                await accounts.set_credit(connection, account_id, None)
                return
            missing = nanos - await stored.granted_nanos(connection, account_id)
            grant_id, now = ids.sortable("grant"), self._clock.unix_ns()
            row = GrantRow(grant_id, account_id, missing, "Credit was set.", "", now)
            await stored.grant(connection, row)

    async def grant(self, row: GrantRow) -> bool:
        """Add to an account's credit, see `credit.grant`."""
        async with self.changing(row.account_id) as connection:
            return await credit.grant(connection, row)

    async def set_monthly_limit(
        self, account_id: str, nanos: int | None, also: Also | None = None, *,
        by_admin: bool = False,
    ) -> None:  # fmt: skip
        """What an account may spend in a month; None: no limit; 0 blocks it. Raises NotFound.

        Its own limit, or the installation's admin's, which it cannot lift: the lower one applies.
        `also` is done in the same transaction.
        """
        async with self.changing(account_id) as connection:
            if not await stored.set_monthly_limit(connection, account_id, nanos, by_admin=by_admin):
                raise NotFound("No such account.")
            if also is not None:
                await also(connection)

    async def set_token_monthly_limit(
        self, account_id: str, token_id: str, nanos: int | None, also: Also | None = None
    ) -> None:
        """The same of a token. Raises NotFound."""
        async with self.changing(account_id) as connection:
            if not await stored.set_token_monthly_limit(connection, account_id, token_id, nanos):
                raise NotFound("No such token.")
            if also is not None:
                await also(connection)

    @asynccontextmanager
    async def changing(self, account_id: str) -> AsyncGenerator[AsyncConnection]:
        """A transaction that changes an account's budgets, and tells all gateways."""
        async with self._database.writing() as connection:
            yield connection
            change = Change(connection)
            change.touch("purse", account_id)
            await changes.write(change, self._clock.unix_ns())
        try:
            await self.refresh(account_id)
        except Unavailable:
            # It is committed all the same: each payer reads it with his next request.
            await self.refresh(None)

    async def refresh(self, account_id: str | None) -> None:
        """Read the limits of an account and its tokens again: they were changed, here or elsewhere.

        None: of all accounts, each with its next request.
        """
        self._generation += 1
        if self._leases is not None:
            self._leases.news += 1
        if account_id is None:
            self._plans.clear()
            return
        payers = {payer for payer in self._plans if payer.account_id == account_id}
        tokens = {payer.token_id for payer in payers} or {""}
        now, touched = self._clock.unix_ns(), list[str]()
        async with self._database.reading() as connection:
            for token_id in tokens:
                limits = await stored.limits(connection, account_id, token_id)
                found = limits_of(Payer(account_id, token_id), limits, now)
                touched += [key for key, (_, limit) in found.items() if self._limit(key, limit)]
        if self._leases is not None:
            await self._leases.give_back(touched)

    def _limit(self, key: str, limit: int | None) -> bool:
        """Set a purse's limit; True if it is known and was another one."""
        purse = self._purses.get(key)
        if purse is None or purse.limit == limit:
            return False
        purse.set_limit(limit)
        return True

    async def _plan(self, payer: Payer, now_unix_ns: int) -> Plan:
        """Make the payer's purses known. However many requests ask at once, one reads."""
        key = payer, month_of(now_unix_ns)
        loading = self._loading.get(key)
        if loading is None:
            # Held by this object; it ends by itself.
            loading = asyncio.get_running_loop().create_task(self._load(payer, now_unix_ns))
            self._loading[key] = loading
            loading.add_done_callback(partial(self._loaded, key))
        return await asyncio.shield(loading)

    def _loaded(self, key: tuple[Payer, str], done: asyncio.Future[Plan]) -> None:
        del self._loading[key]
        if not done.cancelled():
            # Whoever waited may have left.
            done.exception()

    async def _load(self, payer: Payer, now_unix_ns: int) -> Plan:
        """The one place where a reservation reads the database."""
        month = month_of(now_unix_ns)
        keys = keys_of(payer.account_id, payer.token_id, payer.jwt_id, month)
        if len(self._purses) > PURSES_MAX:
            self._forget_idle()
        try:
            while True:
                generation = self._generation
                async with self._database.reading() as connection:
                    limits = await stored.limits(connection, payer.account_id, payer.token_id)
                    spent = await stored.spent(connection, keys)
                if generation == self._generation:
                    break
        except Unavailable:
            return self._plan_of_old(payer)
        found = limits_of(payer, limits, now_unix_ns)
        for key, (kind, limit) in found.items():
            if key in self._purses:
                self._purses[key].set_limit(limit)
            elif self._leases is not None:
                self._purses[key] = Purse(key, kind, limit, 0, leased=True)
            else:
                allowed = (limit or 0) - spent.get(key, 0)
                self._purses[key] = Purse(key, kind, limit, allowed)
        plan = Plan(*month_span(now_unix_ns), tuple(self._purses[key] for key in found))
        self._plans[payer] = plan
        return plan

    def _plan_of_old(self, payer: Payer) -> Plan:
        """A new month began while the database is away: who had no limit goes on without."""
        plan = self._plans.get(payer)
        if plan is None or any(purse.limit is not None for purse in plan.purses):
            raise Unavailable("The budget cannot be read at the moment.", retry_after_seconds=5)
        return plan

    def _forget_idle(self) -> None:
        """Forget purses that no running request holds; none while the journal has newer news.

        What they have leased is given back first; they are forgotten the next time.
        """
        now = self._clock.seconds()
        if self._writer.behind or now < self._forgotten_seconds + FORGET_SECONDS:
            return
        self._forgotten_seconds = now
        self._generation += 1
        self._plans.clear()
        needed = {key: one for key, one in self._purses.items() if one.pins or one.is_leasing}
        self._purses = needed
        if self._leases is not None:
            idle = [key for key, purse in needed.items() if purse.is_leasing and not purse.pins]
            self._leases.give_back_soon(idle)

    def _nothing_held(self, entry: EntryRow) -> Hold:
        """Of a settlement without a reservation: its purses, as far as they are known."""
        known = tuple(
            purse for key in purse_keys(entry) if (purse := self._purses.get(key)) is not None
        )
        for purse in known:
            purse.pins += 1
        return Hold(known, 0, written=False)

    def _settled(
        self, request_id: str, paid: list[tuple[Purse, int]], done: asyncio.Future[bool]
    ) -> None:
        del self._settling[request_id]
        booked = not done.cancelled() and done.exception() is None and done.result()
        for purse, nanos in paid:
            purse.pins -= 1
            if not booked:
                # It was booked before, or it is not in the ledger: either way it is not spent now.
                purse.allowed += nanos

    def _write_soon(self, write: LedgerWrite) -> None:
        """Commit with the next group; memory is what decides, the row is for a crash."""
        done = self._writer.submit(write)
        self._pending.add(done)
        done.add_done_callback(self._written)

    def _written(self, done: asyncio.Future[bool]) -> None:
        self._pending.discard(done)
        # A reservation row that could not be written costs nothing; `healthy` tells.
        if not done.cancelled():
            done.exception()
