"""Signing in with a password of this installation.

Everybody else comes through a provider; a password of our own is for the admin, who must be able
to come in when no provider is set up or none answers.
"""

from __future__ import annotations

from inferd import ids
from inferd.access import audit, passwords
from inferd.access.attempts import Attempts
from inferd.access.caller import Caller
from inferd.access.passwords import Hasher
from inferd.access.scopes import ADMIN_ACCOUNT
from inferd.access.sessions import NewSession, Sessions, person_of
from inferd.clock import Clock
from inferd.errors import BadRequest, NotFound, Unauthorized
from inferd.storage import accounts, people, sign_in
from inferd.storage.audit import Connection
from inferd.storage.database import Database
from inferd.storage.rows import MemberRow, PersonRow
from inferd.storage.sign_in import PasswordRow

PASSWORD = "password"
ADMIN_LOGIN = "admin"
LOGIN_CHARACTERS_MAX = 320
_WRONG = "The name or the password is wrong."


class SignIn:
    """Checks passwords and begins sessions."""

    def __init__(self, database: Database, clock: Clock, sessions: Sessions) -> None:
        self._database = database
        self._clock = clock
        self._sessions = sessions
        self._hasher = Hasher()
        self._attempts = Attempts(database, clock)

    async def with_password(self, login: str, password: str, address: str) -> NewSession:
        """A new session. Raises Unauthorized, TooManyRequests; equal work for unknown names."""
        name = login.strip().lower()
        if max(len(name), len(password)) > LOGIN_CHARACTERS_MAX:
            raise Unauthorized(_WRONG)
        await self._attempts.count(name, address)
        async with self._database.reading() as connection:
            row = await sign_in.password_of(connection, name)
        right = await self._hasher.matches(row.hash if row else None, password)
        if row is None or not right:
            raise Unauthorized(_WRONG)
        await self._attempts.succeeded(name, address)
        async with self._database.writing() as connection:
            return await self._sessions.begin(connection, row.person_id, PASSWORD, address)

    async def change_password(self, caller: Caller, current: str, new: str, address: str) -> None:
        """The person's new password; his other sessions end. Raises Unauthorized, BadRequest."""
        person_id = person_of(caller)
        passwords.check_new(new)
        async with self._database.reading() as connection:
            row = await sign_in.password_of_person(connection, person_id)
        if row is None:
            raise BadRequest("You sign in through a provider and have no password here.")
        await self._attempts.count(row.login, address)
        if not await self._hasher.matches(row.hash, current):
            raise Unauthorized("The current password is wrong.")
        await self._attempts.succeeded(row.login, address)
        hashed = await self._hasher.hash(new)
        async with self._database.writing() as connection:
            await self._store(connection, person_id, row.login, hashed)
            await sign_in.end_sessions(connection, person_id, but=caller.token_id)
            await audit.write(connection, caller, "password.change", person_id)

    async def reset_password(self, caller: Caller, login: str) -> str:
        """A new password for a login name, made here; his sessions end. Raises NotFound.

        For the admin's own name a person is made at the first time.
        """
        name = login.strip().lower()
        async with self._database.reading() as connection:
            if name != ADMIN_LOGIN and await _person_of(connection, name) is None:
                raise NotFound("Nobody signs in with this name.", param="login")
        password = passwords.generated()
        hashed = await self._hasher.hash(password)
        async with self._database.writing() as connection:
            person_id = await self._person_for(connection, name)
            await self._store(connection, person_id, name, hashed)
            await sign_in.end_sessions(connection, person_id)
            await audit.write(connection, caller, "password.reset", person_id, {"login": name})
        return password

    async def first_password(self, caller: Caller) -> str | None:
        """The admin's first password; None if he has one, or if the extra is not installed."""
        if not Hasher.is_installed():
            return None
        async with self._database.reading() as connection:
            if await sign_in.password_of(connection, ADMIN_LOGIN) is not None:
                return None
        return await self.reset_password(caller, ADMIN_LOGIN)

    async def _store(self, connection: Connection, person_id: str, login: str, hashed: str) -> None:
        row = PasswordRow(person_id, login, hashed, self._clock.unix_ns())
        await sign_in.set_password(connection, row)

    async def _person_for(self, connection: Connection, login: str) -> str:
        return await _person_of(connection, login) or await self._make_admin(connection)

    async def _make_admin(self, connection: Connection) -> str:
        account = await accounts.by_name(connection, ADMIN_ACCOUNT)
        if account is None:
            raise NotFound("The admin's account does not exist yet.")
        now = self._clock.unix_ns()
        person = PersonRow(
            id=ids.sortable("per"),
            email=None,
            email_verified=False,
            name="Admin",
            picture=None,
            created_unix_ns=now,
        )
        await people.add(connection, person)
        await people.join(connection, MemberRow(account.id, person.id, "admin", now))
        return person.id


async def _person_of(connection: Connection, login: str) -> str | None:
    known = await sign_in.password_of(connection, login)
    if known is not None:
        return known.person_id
    person = await people.by_email(connection, login)
    return None if person is None else person.id
