"""API tokens: minted once, stored as a keyed digest, looked up by it, revoked at once.

The digest is BLAKE2b, keyed with the installation's key. A fast hash is enough: the secret is 32
random bytes, nothing to guess; the key makes a stolen database useless for checking guesses.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

from inferd import ids
from inferd.access.caller import ADMIN, Caller
from inferd.clock import Clock
from inferd.errors import BadRequest, NotFound, Unauthorized
from inferd.storage import accounts, tokens
from inferd.storage.database import Database
from inferd.storage.rows import AccountRow, TokenRow

V = TypeVar("V")

BOOTSTRAP_CHARACTERS_MIN = 32
SECRET_CHARACTERS_MAX = 512
CACHED_MAX = 10_000
REFUSED_MAX = 10_000
ADMIN_ACCOUNT = "admin"
DEFAULT_TOKEN = "auto"
BOOTSTRAP_TOKEN = "bootstrap"


class Tokens:
    """Who a secret belongs to. Warm look-ups touch memory only."""

    def __init__(self, database: Database, key: bytes, clock: Clock) -> None:
        self._database = database
        self._key = key
        self._clock = clock
        self._callers: OrderedDict[bytes, Caller] = OrderedDict()
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._local: dict[bytes, Caller] = {}

    def known(self, secret: str) -> Caller | None:
        """The caller behind a secret that was seen before; no database is read."""
        digest = self._digest(secret)
        return self._callers.get(digest) or self._local.get(digest)

    async def authenticate(self, secret: str) -> Caller:
        """The caller behind a secret. Raises Unauthorized."""
        digest = self._digest(secret)
        caller = self._callers.get(digest) or self._local.get(digest)
        if caller is not None:
            return caller
        if secret.startswith("jwt:"):
            raise Unauthorized("Scoped JWTs are not supported yet.")
        found = None
        if digest not in self._refused and len(secret) <= SECRET_CHARACTERS_MAX:
            async with self._database.reading() as connection:
                found = await tokens.by_digest(connection, digest)
        if found is None or not hmac.compare_digest(found.row.digest, digest):
            _remember(self._refused, digest, None, REFUSED_MAX)
            raise Unauthorized("Incorrect API key provided: the token is wrong or was revoked.")
        row = found.row
        caller = Caller(
            row.account_id,
            row.id,
            row.name,
            frozenset(row.scopes),
            person_id=row.person_id,
            suspended=found.suspended,
        )
        _remember(self._callers, digest, caller, CACHED_MAX)
        return caller

    async def create(
        self, account_id: str, name: str, scopes: tuple[str, ...]
    ) -> tuple[TokenRow, str]:
        """A new token and its secret. Raises Conflict if the account has a live one of the name."""
        secret = ids.secret("ifd")
        return await self._store(account_id, name, scopes, secret), secret

    async def list(self, account_id: str) -> Sequence[TokenRow]:
        """The account's live tokens."""
        async with self._database.reading() as connection:
            return await tokens.of_account(connection, account_id)

    async def revoke(self, account_id: str, token_id: str) -> None:
        """End a token; effective when this returns. Raises NotFound."""
        now = self._clock.unix_ns()
        async with self._database.writing() as connection:
            row = await tokens.by_id(connection, account_id, token_id)
            if row is None or not await tokens.revoke(connection, account_id, token_id, now):
                raise NotFound("No such token.")
        self._callers.pop(row.digest, None)

    async def ensure_admin(self, bootstrap: str | None) -> str | None:
        """Make the admin account at the first start; returns a new token's secret then.

        With a bootstrap token that one is the admin's; it replaces an earlier bootstrap token.
        """
        if bootstrap is not None and len(bootstrap) < BOOTSTRAP_CHARACTERS_MIN:
            raise BadRequest(
                f"The bootstrap token needs at least {BOOTSTRAP_CHARACTERS_MIN} characters."
            )
        account, is_new = await self._admin_account()
        if bootstrap is not None:
            await self._register_bootstrap(account.id, bootstrap)
            return None
        if not is_new:
            return None
        _, secret = await self.create(account.id, DEFAULT_TOKEN, (ADMIN,))
        return secret

    async def local_admin(self) -> str:
        """A secret for this machine's command line; lives in memory until the process ends."""
        account, _ = await self._admin_account()
        secret = ids.secret("ifd_local")
        caller = Caller(account.id, "tok_local", "local", frozenset({ADMIN}))
        self._local[self._digest(secret)] = caller
        return secret

    async def _admin_account(self) -> tuple[AccountRow, bool]:
        async with self._database.writing() as connection:
            found = await accounts.by_name(connection, ADMIN_ACCOUNT)
            if found is not None:
                return found, False
            row = AccountRow(ids.sortable("acc"), ADMIN_ACCOUNT, self._clock.unix_ns(), None)
            await accounts.add(connection, row)
            return row, True

    async def _register_bootstrap(self, account_id: str, secret: str) -> None:
        digest = self._digest(secret)
        for row in await self.list(account_id):
            if row.name == BOOTSTRAP_TOKEN:
                if hmac.compare_digest(row.digest, digest):
                    return
                await self.revoke(account_id, row.id)
        await self._store(account_id, BOOTSTRAP_TOKEN, (ADMIN,), secret)

    async def _store(
        self, account_id: str, name: str, scopes: tuple[str, ...], secret: str
    ) -> TokenRow:
        row = TokenRow(
            id=ids.sortable("tok"),
            account_id=account_id,
            name=name,
            digest=self._digest(secret),
            fragment=secret[-5:],
            scopes=scopes,
            created_unix_ns=self._clock.unix_ns(),
        )
        async with self._database.writing() as connection:
            await tokens.add(connection, row)
        self._refused.pop(row.digest, None)
        return row

    def _digest(self, secret: str) -> bytes:
        # hmac.digest would let go of the interpreter lock for a microsecond of work.
        content = secret.encode("utf-8", "surrogatepass")
        return blake2b(content, key=self._key, digest_size=32).digest()


def _remember(cache: OrderedDict[bytes, V], key: bytes, value: V, size_max: int) -> None:
    cache[key] = value
    if len(cache) > size_max:
        cache.popitem(last=False)
