"""Sessions: a person who is signed in with a browser.

The cookie holds 32 random bytes; the database their plain digest, which is enough for a secret
that cannot be guessed and outlives a change of the installation's key. Every request reads the
session, the role and the account anew: what changes is effective at once, on every gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from inferd import ids
from inferd.access import audit
from inferd.access.caller import Caller
from inferd.access.scopes import scopes_of
from inferd.clock import Clock
from inferd.errors import Forbidden, NotFound, Unauthorized
from inferd.storage import people, sign_in
from inferd.storage.audit import Connection
from inferd.storage.database import Database
from inferd.storage.people import Membership
from inferd.storage.sign_in import SessionRow

SECRET_PREFIX = "ses"
SESSION_TOKEN_NAME = "session"
_NS = 1_000_000_000
TOUCH_SECONDS = 60
"""A session in use is marked so at most this often."""


class NewSession(NamedTuple):
    """A session and what its cookie holds."""

    row: SessionRow
    secret: str


def digest_of(secret: str) -> bytes:
    """What the database keeps of a random secret."""
    return blake2b(secret.encode("utf-8", "surrogatepass"), digest_size=32).digest()


class Sessions:
    """Begins, finds and ends them."""

    def __init__(
        self, database: Database, clock: Clock, *, idle_seconds: float, seconds_max: float
    ) -> None:
        self._database = database
        self._clock = clock
        self._idle_ns = round(idle_seconds * _NS)
        self.seconds_max = seconds_max
        """How long a session lives at most, however much it is used."""

    async def begin(
        self, connection: Connection, person_id: str, provider: str, address: str
    ) -> NewSession:
        """A new session in the person's first account. Raises Forbidden if there is none."""
        memberships = await people.memberships(connection, person_id)
        if not memberships:
            raise Forbidden("You are not a member of any account here.")
        now = self._clock.unix_ns()
        await sign_in.forget_expired(connection, now)
        secret = ids.secret(SECRET_PREFIX)
        row = SessionRow(
            id=ids.sortable(SECRET_PREFIX),
            digest=digest_of(secret),
            person_id=person_id,
            account_id=memberships[0].account.id,
            provider=provider,
            address=address,
            created_unix_ns=now,
            seen_unix_ns=now,
            expires_unix_ns=now + round(self.seconds_max * _NS),
        )
        await sign_in.add_session(connection, row)
        await audit.write(connection, _caller(row, memberships[0]), "session.begin", row.id)
        return NewSession(row, secret)

    async def authenticate(self, secret: str) -> Caller:
        """The person behind a cookie, in the account of the session. Raises Unauthorized."""
        async with self._database.reading() as connection:
            row = await sign_in.session_of(connection, digest_of(secret))
            now = self._clock.unix_ns()
            if row is None or now >= min(row.expires_unix_ns, row.seen_unix_ns + self._idle_ns):
                raise Unauthorized("The session has ended; sign in again.")
            membership = await _membership(connection, row.person_id, row.account_id)
        if membership is None:
            raise Unauthorized("The session has ended; sign in again.")
        if now - row.seen_unix_ns > TOUCH_SECONDS * _NS:
            async with self._database.writing() as connection:
                await sign_in.touch(connection, row.id, now)
        return _caller(row, membership)

    async def list(self, person_id: str) -> Sequence[SessionRow]:
        """A person's sessions that have not ended, the newest first."""
        now = self._clock.unix_ns()
        async with self._database.reading() as connection:
            rows = await sign_in.sessions_of(connection, person_id)
        return [
            row for row in rows if now < min(row.expires_unix_ns, row.seen_unix_ns + self._idle_ns)
        ]

    async def end(self, caller: Caller, session_id: str) -> None:
        """End one of the person's, at once. Raises NotFound, Forbidden."""
        async with self._database.writing() as connection:
            if not await sign_in.end_session(connection, person_of(caller), session_id):
                raise NotFound("No such session.")
            await audit.write(connection, caller, "session.end", session_id)

    async def move(self, caller: Caller, account_id: str) -> None:
        """Work in another account of the person. Raises NotFound if he is not in it."""
        person_id = person_of(caller)
        async with self._database.writing() as connection:
            if await _membership(connection, person_id, account_id) is None:
                raise NotFound("No such account.")
            await sign_in.move(connection, caller.token_id, account_id)


def person_of(caller: Caller) -> str:
    """The person of a session. Raises Forbidden for a token."""
    # By the id: a token may be called as a session is.
    if not caller.token_id.startswith(f"{SECRET_PREFIX}_") or caller.person_id is None:
        raise Forbidden("This is for people who are signed in, not for tokens.")
    return caller.person_id


def _caller(row: SessionRow, membership: Membership) -> Caller:
    return Caller(
        account_id=row.account_id,
        token_id=row.id,
        token_name=SESSION_TOKEN_NAME,
        scopes=scopes_of(membership.role, membership.account.name),
        person_id=row.person_id,
        suspended=membership.account.suspended,
    )


async def _membership(connection: Connection, person_id: str, account_id: str) -> Membership | None:
    for membership in await people.memberships(connection, person_id):
        if membership.account.id == account_id:
            return membership
    return None
