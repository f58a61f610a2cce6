"""Teams: accounts with several people, who are admins or members."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.access import audit
from inferd.access.accounts import Accounts
from inferd.access.caller import ADMIN, Caller
from inferd.access.changes import Changes
from inferd.access.scopes import ADMIN_ACCOUNT
from inferd.clock import Clock
from inferd.errors import Conflict, Forbidden, NotFound
from inferd.storage import accounts, people, tokens
from inferd.storage.changes import Change
from inferd.storage.database import Database
from inferd.storage.people import Membership, Teammate
from inferd.storage.rows import AccountRow, MemberRow, Role

TEAMS_MAX = 100
"""Of one person."""
MEMBERS_MAX = 10_000
"""Of one team."""


class Teams:
    """Who works in the caller's account. A person's tokens end with his membership."""

    def __init__(
        self, database: Database, changes: Changes, clock: Clock, accounts_room: Accounts
    ) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock
        self._accounts = accounts_room

    async def of_person(self, caller: Caller) -> Sequence[Membership]:
        """The accounts that the caller's person works in. Raises Forbidden for nobody's token."""
        async with self._database.reading() as connection:
            return await people.memberships(connection, _person(caller))

    async def members(self, account_id: str) -> Sequence[Teammate]:
        """The people of an account, oldest first."""
        async with self._database.reading() as connection:
            return await people.team(connection, account_id)

    async def create(self, caller: Caller, name: str) -> AccountRow:
        """A new team whose admin is the caller. Raises Conflict, Forbidden for nobody's token."""
        person_id = _person(caller)
        async with self._changes.writing() as change:
            if len(await people.memberships(change.connection, person_id)) > TEAMS_MAX:
                raise Conflict(f"A person is in at most {TEAMS_MAX} teams.")
            row = await self._accounts.create_in(change, caller, name, "team")
            member = MemberRow(row.id, person_id, "admin", self._clock.unix_ns())
            await people.join(change.connection, member)
        return row

    async def add(self, caller: Caller, email: str, role: Role, name: str) -> Teammate:
        """Make somebody a member. Raises Conflict if he is one."""
        async with self._changes.writing() as change:
            await self._check_shared(change, caller)
            if len(await people.team(change.connection, caller.account_id)) >= MEMBERS_MAX:
                raise Conflict(f"A team has at most {MEMBERS_MAX} members.")
            person = await self._accounts.enrol(change, caller.account_id, email, role, name)
            detail = {"email": person.email, "role": role}
            await audit.write(change.connection, caller, "member.add", person.id, detail)
        return Teammate(person, role, self._clock.unix_ns())

    async def set_role(self, caller: Caller, person_id: str, role: Role) -> None:
        """Change a member's role. Raises NotFound, Conflict if no admin would be left."""
        async with self._changes.writing() as change:
            await self._check_shared(change, caller)
            await self._check_leaves_an_admin(change, caller.account_id, person_id, role)
            await people.set_role(change.connection, caller.account_id, person_id, role)
            detail = {"role": role}
            await audit.write(change.connection, caller, "member.role", person_id, detail)
            change.touch("account", caller.account_id)

    async def remove(self, caller: Caller, person_id: str) -> None:
        """End a membership and the person's tokens in it. Raises NotFound, Conflict."""
        async with self._changes.writing() as change:
            await self._check_shared(change, caller, leaving=person_id == caller.person_id)
            await self._check_leaves_an_admin(change, caller.account_id, person_id, None)
            now = self._clock.unix_ns()
            await people.leave(change.connection, caller.account_id, person_id)
            await tokens.revoke_all(change.connection, caller.account_id, now, person_id)
            await audit.write(change.connection, caller, "member.remove", person_id)
            change.touch("account", caller.account_id)

    async def _check_shared(self, change: Change, caller: Caller, *, leaving: bool = False) -> None:
        row = await accounts.locked(change.connection, caller.account_id)
        if row is None or row.deleted_unix_ns is not None:
            raise NotFound("No such account.")
        if row.name == ADMIN_ACCOUNT:
            # Its admins run the installation: who manages only the account must not make them.
            if not leaving:
                caller.require_scope(ADMIN)
        elif row.kind != "team":
            raise Conflict("A personal account has no members; create a team.")

    async def _check_leaves_an_admin(
        self, change: Change, account_id: str, person_id: str, role: Role | None
    ) -> None:
        had = await people.role_of(change.connection, account_id, person_id)
        if had is None:
            raise NotFound("No such member.")
        last = had == "admin" and await people.admins(change.connection, account_id) == 1
        if last and role != "admin":
            raise Conflict("The last admin of a team cannot leave it or become a member.")


def _person(caller: Caller) -> str:
    if caller.person_id is None:
        raise Forbidden("This token belongs to nobody; a person must do this.")
    return caller.person_id
