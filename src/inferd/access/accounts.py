"""Accounts: who pays. Made, described, suspended and deleted here, each with its audit row."""

from __future__ import annotations

from collections.abc import Sequence

from inferd import ids
from inferd.access import audit
from inferd.access.caller import Caller
from inferd.access.changes import Changes
from inferd.access.scopes import ADMIN_ACCOUNT
from inferd.clock import Clock
from inferd.errors import Conflict, NotFound
from inferd.storage import account_names, accounts, people, tokens, voices
from inferd.storage.changes import Change
from inferd.storage.database import Database
from inferd.storage.rows import AccountKind, AccountRow, MemberRow, PersonRow, Role


class Accounts:
    """Changes are effective on every gateway within a second, here when a method returns."""

    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def get(self, account_id: str) -> AccountRow:
        """One that is not deleted. Raises NotFound."""
        async with self._database.reading() as connection:
            row = await accounts.by_id(connection, account_id)
        if row is None or row.deleted_unix_ns is not None:
            raise NotFound("No such account.")
        return row

    async def every(self) -> Sequence[AccountRow]:
        """All that are not deleted."""
        async with self._database.reading() as connection:
            return await accounts.every(connection)

    async def create_in(
        self, change: Change, caller: Caller, name: str, kind: AccountKind
    ) -> AccountRow:
        """A new one, without people or tokens. Raises Conflict if the name is taken."""
        now = self._clock.unix_ns()
        row = AccountRow(ids.sortable("acc"), name, now, None, kind=kind)
        await accounts.add(change.connection, row)
        await account_names.require_once(change.connection, name, row.id)
        detail = {"name": name, "kind": kind}
        await audit.write(change.connection, caller, "account.create", row.id, detail)
        change.touch("account", row.id)
        return row

    async def describe(self, caller: Caller, row: AccountRow, name: str, profile: str) -> None:
        """Set what an account says of itself. Raises Conflict if the name is taken."""
        if row.name == ADMIN_ACCOUNT != name:
            raise Conflict("The installation's own account keeps its name.", param="display_name")
        async with self._changes.writing() as change:
            await accounts.describe(change.connection, row.id, name, profile)
            if name != row.name:
                await account_names.require_once(change.connection, name, row.id)
            await audit.write(change.connection, caller, "account.describe", row.id)
            change.touch("account", row.id)

    async def suspend(self, caller: Caller, account_id: str, reason: str | None) -> None:
        """Let it spend nothing more, with a reason for its people; None lets it spend again."""
        row = await self.get(account_id)
        if row.name == ADMIN_ACCOUNT and reason is not None:
            raise Conflict("The installation's own account cannot be suspended.")
        async with self._changes.writing() as change:
            if not await accounts.suspend(change.connection, account_id, reason):
                raise NotFound("No such account.")
            verb = "account.unsuspend" if reason is None else "account.suspend"
            await audit.write(change.connection, caller, verb, account_id, {"reason": reason})
            change.touch("account", account_id)

    async def delete(self, caller: Caller, account_id: str) -> None:
        """End it and its tokens; entries stay, and of a team its name for reports.

        A person's own account takes his name with it, a team everybody who has no other account.
        Raises Conflict for the installation's account, and for the last admin of a team.
        """
        row = await self.get(account_id)
        if row.name == ADMIN_ACCOUNT:
            raise Conflict("The installation's own account cannot be deleted.")
        async with self._changes.writing() as change:
            connection, now = change.connection, self._clock.unix_ns()
            await accounts.locked(connection, account_id)
            mates = await people.team(connection, account_id)
            if row.kind == "personal":
                for mate in mates:
                    await self._erase(change, mate.person.id, account_id)
            await tokens.revoke_all(connection, account_id, now)
            await people.disband(connection, account_id)
            await voices.remove_all(connection, account_id)
            for mate in mates:
                if not await people.memberships(connection, mate.person.id):
                    await people.erase(connection, mate.person.id)
            if not await accounts.delete(connection, account_id, now):
                raise NotFound("No such account.")
            if row.kind == "team":
                # No account can be made with a name that has brackets, so it is free again.
                name = f"{row.name} (deleted {account_id})"
                await accounts.describe(connection, account_id, name, "{}")
            await audit.write(connection, caller, "account.delete", account_id)
            change.touch("account", account_id)

    async def _erase(self, change: Change, person_id: str, own_account_id: str) -> None:
        for account, role in await people.memberships(change.connection, person_id):
            if account.id == own_account_id:
                continue
            await accounts.locked(change.connection, account.id)
            if role == "admin" and await people.admins(change.connection, account.id) == 1:
                raise Conflict(f"You are the last admin of {account.name}; hand it over first.")
            now = self._clock.unix_ns()
            await tokens.revoke_all(change.connection, account.id, now, person_id)
            change.touch("account", account.id)
        await people.erase(change.connection, person_id)

    async def enrol(
        self, change: Change, account_id: str, email: str, role: Role, name: str = ""
    ) -> PersonRow:
        """Make somebody a member: who signs in with this address later is that person.

        Raises Conflict if he is one.
        """
        now, address = self._clock.unix_ns(), email.strip().lower()
        person = await people.by_email(change.connection, address)
        if person is None:
            person = PersonRow(
                id=ids.sortable("per"),
                email=address,
                email_verified=False,
                name=name or address.partition("@")[0],
                picture=None,
                created_unix_ns=now,
            )
            await people.add(change.connection, person)
        await people.join(change.connection, MemberRow(account_id, person.id, role, now))
        change.touch("account", account_id)
        return person
