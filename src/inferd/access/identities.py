"""Whom a provider vouches for becomes a person here, with his accounts and teams.

The provider's issuer and subject name a person for good; the e-mail address only finds somebody
who is here already, once.
"""

from __future__ import annotations

import logging

from inferd import ids
from inferd.access import audit
from inferd.access.caller import Caller
from inferd.access.openid import Claims, Provider
from inferd.clock import Clock
from inferd.errors import Forbidden
from inferd.storage import account_names, accounts, people, sign_in
from inferd.storage.audit import Connection
from inferd.storage.changes import Change
from inferd.storage.rows import AccountRow, MemberRow, PersonRow, Role

_log = logging.getLogger("inferd.access")


class Identities:
    """Finds and makes people, in the transaction of the sign-in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def person(self, change: Change, claims: Claims, provider: Provider) -> str:
        """The person's id. Raises Forbidden for a stranger where accounts are not made."""
        connection = change.connection
        found = await sign_in.person_behind(connection, claims.issuer, claims.subject)
        if found is None:
            found = await self._first_time(connection, claims, provider)
            now = self._clock.unix_ns()
            await sign_in.link(connection, claims.issuer, claims.subject, found, now)
        await self._follow_groups(change, found, claims, provider)
        return found

    async def _first_time(self, connection: Connection, claims: Claims, provider: Provider) -> str:
        known = await people.by_email(connection, claims.email)
        if known is not None:
            if await sign_in.has_identity(connection, claims.issuer, known.id):
                # An address that went from one employee to the next.
                raise Forbidden("This e-mail address belongs to somebody else here.")
            return known.id
        mapped = any(group in provider.teams for group in claims.groups)
        if not provider.make_accounts and not mapped:
            raise Forbidden("Nobody here has this e-mail address; ask an admin to invite you.")
        return await self._make(connection, claims, own_account=provider.make_accounts)

    async def _make(self, connection: Connection, claims: Claims, *, own_account: bool) -> str:
        now = self._clock.unix_ns()
        person = PersonRow(
            id=ids.sortable("per"),
            email=claims.email,
            email_verified=True,
            name=claims.name,
            picture=claims.picture,
            created_unix_ns=now,
        )
        await people.add(connection, person)
        if own_account:
            name = await _free_name(connection, claims.email)
            account = AccountRow(ids.sortable("acc"), name, now, None)
            await accounts.add(connection, account)
            await account_names.require_once(connection, name, account.id)
            await people.join(connection, MemberRow(account.id, person.id, "admin", now))
        return person.id

    async def _follow_groups(
        self, change: Change, person_id: str, claims: Claims, provider: Provider
    ) -> None:
        """Be in the teams of one's groups with their best role, and in none of the others."""
        wanted: dict[str, Role | None] = {}
        for group, place in provider.teams.items():
            role = place.role if group in claims.groups else None
            if role == "admin" or wanted.get(place.team) is None:
                wanted[place.team] = role
        for team, role in wanted.items():
            account = await accounts.by_name(change.connection, team)
            if account is None or account.deleted_unix_ns is not None:
                _log.warning("sign-in: a group belongs to the team %r, which does not exist", team)
            else:
                await self._place(change, person_id, account, role)

    async def _place(
        self, change: Change, person_id: str, account: AccountRow, role: Role | None
    ) -> None:
        connection = change.connection
        had = await people.role_of(connection, account.id, person_id)
        if had == role:
            return
        if role is None:
            await people.leave(connection, account.id, person_id)
        elif had is None:
            member = MemberRow(account.id, person_id, role, self._clock.unix_ns())
            await people.join(connection, member)
        else:
            await people.set_role(connection, account.id, person_id, role)
        self_made = Caller(account.id, "", "sign-in", frozenset(), person_id=person_id)
        what = {"from": had, "to": role, "by": "group of the provider"}
        await audit.write(connection, self_made, "member.follow", person_id, what)
        change.touch("account", account.id)


async def _free_name(connection: Connection, email: str) -> str:
    """An account name that nobody has: the address's first part, numbered if need be."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in email.partition("@")[0])
    base = "-".join(filter(None, kept.split("-")))[:30] or "account"
    name, number = base, 2
    while not await account_names.is_free(connection, name):
        name, number = f"{base}-{number}", number + 1
    return name
