"""A command line tool that signs in through the browser (deepinfra-api 9.4).

The tool makes up an id, opens a page with it and asks for a token with the same id. A signed-in
person says yes on that page; the token is made when the tool asks, so its secret is never stored.
"""

from __future__ import annotations

from inferd import ids
from inferd.access import audit
from inferd.access.caller import Caller
from inferd.access.changes import Changes
from inferd.access.scopes import scopes_of
from inferd.access.sessions import digest_of, person_of
from inferd.access.tokens import Tokens, TokenWish
from inferd.clock import Clock
from inferd.errors import BadRequest
from inferd.storage import people, sign_in
from inferd.storage.database import Database
from inferd.storage.sign_in import CommandSignInRow

ID_CHARACTERS_MIN, ID_CHARACTERS_MAX = 16, 128
SECONDS_MAX = 600
_NS = 1_000_000_000


class CommandSignIn:
    """Lets tools in."""

    def __init__(self, database: Database, clock: Clock, tokens: Tokens, changes: Changes) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._changes = changes

    async def allow(self, caller: Caller, login_id: str) -> None:
        """A person says yes. Raises BadRequest, Conflict, Forbidden."""
        now = self._clock.unix_ns()
        row = CommandSignInRow(
            digest_of(_checked(login_id)),
            person_of(caller),
            caller.account_id,
            now + SECONDS_MAX * _NS,
        )
        async with self._database.writing() as connection:
            await sign_in.forget_expired(connection, now)
            await sign_in.take_command_sign_in(connection, row.digest)
            await sign_in.add_command_sign_in(connection, row)

    async def token(self, login_id: str) -> str | None:
        """The tool's token, once; None while nobody said yes. Raises BadRequest."""
        digest = digest_of(_checked(login_id))
        async with self._database.reading() as connection:
            if not await sign_in.is_allowed(connection, digest):
                return None
        async with self._database.writing() as connection:
            row = await sign_in.take_command_sign_in(connection, digest)
            if row is None or row.expires_unix_ns <= self._clock.unix_ns():
                return None
            memberships = await people.memberships(connection, row.person_id)
        for account, role in memberships:
            if account.id == row.account_id:
                return await self._made(row, tuple(sorted(scopes_of(role, account.name))))
        return None

    async def _made(self, row: CommandSignInRow, scopes: tuple[str, ...]) -> str:
        wish = TokenWish(ids.sortable("command-line"), scopes, person_id=row.person_id)
        async with self._changes.writing() as change:
            token, secret = await self._tokens.create_in(change, row.account_id, wish)
            person = Caller(
                row.account_id, "", "sign-in", frozenset(scopes), person_id=row.person_id
            )
            await audit.write(change.connection, person, "token.create", token.id)
        return secret


def _checked(login_id: str) -> str:
    if not ID_CHARACTERS_MIN <= len(login_id) <= ID_CHARACTERS_MAX:
        raise BadRequest(
            f"login_id has {ID_CHARACTERS_MIN} to {ID_CHARACTERS_MAX} characters.",
            param="login_id",
        )
    return login_id
