"""Where limits are kept and changed; the gate reads them from memory."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inferd import ids
from inferd.access import audit
from inferd.access.caller import ACCOUNT_ADMIN, MEMBER, Caller
from inferd.access.changes import Changes
from inferd.access.limit_rules import EACH, Rule, has_rate, narrower
from inferd.access.limits import Limits, Past
from inferd.access.window import WINDOW_NS, Bounds
from inferd.clock import Clock
from inferd.errors import Forbidden, NotFound
from inferd.storage import accounts, entries, limits, tokens
from inferd.storage.changes import Change
from inferd.storage.database import Database
from inferd.storage.limits import LimitRequestRow, LimitRow, Status

SHOWN_MAX = 1000


class LimitBook:
    """The limits of the installation. Every change is audited and told to all gateways."""

    def __init__(self, database: Database, live: Limits, changes: Changes, clock: Clock) -> None:
        self._database = database
        self.live = live
        self._changes = changes
        self._clock = clock
        changes.listen("limits", self._changed)

    @classmethod
    async def opened(
        cls, database: Database, live: Limits, changes: Changes, clock: Clock
    ) -> LimitBook:
        """One whose limits hold already."""
        book = cls(database, live, changes, clock)
        await book.load()
        return book

    async def load(self) -> None:
        """Read all limits; from now on they hold, also for what was admitted just before."""
        rules = [Rule(**msgspec.structs.asdict(row)) for row in await self.every()]
        asked = self.live.alone and any(has_rate(rule) for rule in rules)
        self.live.set_rules(rules, await self._past() if asked else ())

    async def _past(self) -> list[Past]:
        """What the ledger has of the last minute."""
        since = self._clock.unix_ns() - WINDOW_NS
        async with self._database.reading() as connection:
            return [Past(*row) for row in await entries.admitted_since(connection, since)]

    async def every(self) -> Sequence[LimitRow]:
        """All limits."""
        async with self._database.reading() as connection:
            return await limits.every(connection)

    async def seen_by(self, caller: Caller) -> Sequence[LimitRow]:
        """Those that name the caller's account, or a token of it that he may see.

        Who manages the account sees all, a member his own tokens, any other token itself.
        """
        async with self._database.reading() as connection:
            rows = await limits.every(connection)
            shown = {None, EACH, caller.token_id}
            if caller.may(MEMBER) and caller.person_id is not None:
                own = await tokens.of_account(connection, caller.account_id, caller.person_id)
                shown |= {row.id for row in own}
        manages = caller.may(ACCOUNT_ADMIN)
        mine = [row for row in rows if row.account_id == caller.account_id]
        return [row for row in mine if manages or row.token_id in shown]

    def rates(self, account_id: str) -> Bounds:
        """What the account may do on a model that has no limit of its own: the least of all."""
        found = Bounds()
        for key, bounds in self.live.applied(account_id, "", EACH):
            if key[0] == account_id and key[1] is None:
                found = narrower(found, bounds)
        return found

    async def put(self, caller: Caller, row: LimitRow) -> LimitRow:
        """Set a limit; one without bounds is removed. Returns it with its account's name.

        One of the account's own is for tokens of the account alone; others are for the
        installation's admin, who is asked for by the route. Raises Forbidden or NotFound.
        """
        async with self._changes.writing() as change:
            row = await _placed(change, row)
            if row.own:
                _check_own(caller, row)
            await self._write(change, caller, row)
        return row

    async def ask(
        self, caller: Caller, rate_limit: int, tpm_rate_limit: int | None, reason: str
    ) -> None:
        """Ask for higher limits. Raises TooManyRequests while an earlier request is pending."""
        row = LimitRequestRow(
            id=ids.sortable("lrq"),
            account_id=caller.account_id,
            rate_limit=rate_limit,
            tpm_rate_limit=tpm_rate_limit,
            reason=reason,
            created_unix_ns=self._clock.unix_ns(),
        )
        async with self._database.writing() as connection:
            await limits.ask(connection, row)

    async def asked(self, status: Status | None) -> Sequence[LimitRequestRow]:
        """What accounts asked for, the newest first."""
        async with self._database.reading() as connection:
            return await limits.asked(connection, status=status, count_max=SHOWN_MAX)

    async def resolve(
        self, caller: Caller, request_id: str, *, grant: bool, answer: str | None
    ) -> LimitRequestRow:
        """Grant a request, which sets the limits on each model, or reject it. Raises NotFound."""
        status: Status = "granted" if grant else "rejected"
        now = self._clock.unix_ns()
        async with self._changes.writing() as change:
            connection = change.connection
            row = await limits.resolve(connection, request_id, status, answer, now)
            if row is None:
                raise NotFound("There is no pending request of this id.")
            if grant:
                await self._write(change, caller, await self._granted(change, row))
            detail = {"status": status, "account_id": row.account_id}
            await audit.write(connection, caller, "limit_request.resolve", request_id, detail)
        return row

    async def _granted(self, change: Change, row: LimitRequestRow) -> LimitRow:
        key = LimitRow(account_id=row.account_id, model=EACH)
        known = [old for old in await limits.every(change.connection) if old.id == key.id]
        old = known[0] if known else key
        return msgspec.structs.replace(
            old,
            concurrent_requests=row.rate_limit,
            tokens_per_minute=row.tpm_rate_limit or old.tokens_per_minute,
        )

    async def _write(self, change: Change, caller: Caller, row: LimitRow) -> None:
        await limits.put(change.connection, row, self._clock.unix_ns())
        detail = msgspec.structs.asdict(row)
        await audit.write(change.connection, caller, "limits.set", row.id, detail)
        change.touch("limits", row.id)

    async def _changed(self, _: str | None) -> None:
        await self.load()


def _check_own(caller: Caller, row: LimitRow) -> None:
    """Of what is somebody else's he is told no more than of what does not exist."""
    if row.account_id not in (None, EACH, caller.account_id):
        raise NotFound("No such account." if row.token_id in (None, EACH) else "No such token.")
    if row.account_id != caller.account_id or row.token_id is None:
        raise Forbidden("Only limits of the account's own tokens can be set.")


async def _placed(change: Change, row: LimitRow) -> LimitRow:
    """With the account that its token belongs to; all that it names must be there."""
    connection = change.connection
    if row.token_id is not None and row.token_id != EACH:
        owner = await limits.account_of_token(connection, row.token_id)
        if owner is None or row.account_id not in (None, owner):
            raise NotFound("No such token.")
        return msgspec.structs.replace(row, account_id=owner)
    if row.token_id == EACH and row.account_id is None:
        row = msgspec.structs.replace(row, account_id=EACH)
    named = row.account_id is not None and row.account_id != EACH
    if named and await accounts.by_id(connection, row.account_id or "") is None:
        raise NotFound("No such account.")
    return row
