"""API tokens: minted once, found by a keyed digest, revoked at once; and the JWTs they sign."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_network

import msgspec

from inferd import ids
from inferd.access import scoped_jwt
from inferd.access.caller import ADMIN, INFERENCE_RUN, Caller, Network
from inferd.access.changes import Changes
from inferd.access.known_callers import KnownCallers
from inferd.access.scopes import ADMIN_ACCOUNT as ADMIN_ACCOUNT
from inferd.access.scopes import scopes_of
from inferd.access.token_secrets import TokenSecrets
from inferd.clock import Clock
from inferd.errors import BadRequest, Conflict, NotFound, Unauthorized, Unavailable
from inferd.storage import accounts, tokens
from inferd.storage.changes import Change
from inferd.storage.database import Database
from inferd.storage.rows import AccountRow, TokenRow
from inferd.storage.tokens import LiveToken

BOOTSTRAP_CHARACTERS_MIN = 32
SECRET_CHARACTERS_MAX = 512
CACHED_MAX = 10_000
REFUSED_MAX = 10_000
DEFAULT_TOKEN = "auto"
BOOTSTRAP_TOKEN = "bootstrap"


class TokenWish(msgspec.Struct, frozen=True):
    """A token to be made."""

    name: str
    scopes: tuple[str, ...] = (INFERENCE_RUN,)
    person_id: str | None = None
    """Whose it will be; None: the account's."""
    expires_unix_ns: int | None = None
    networks: tuple[Network, ...] | None = None
    models: tuple[str, ...] | None = None
    monthly_limit_nanos: int | None = None


class Tokens:
    """Who a secret belongs to. Warm look-ups touch memory only."""

    def __init__(
        self,
        database: Database,
        key: bytes,
        clock: Clock,
        *,
        changes: Changes | None = None,
        retired_keys: tuple[bytes, ...] = (),
    ) -> None:
        self._database = database
        self._secrets = TokenSecrets(key, retired_keys)
        self._clock = clock
        self._changes = changes or Changes(database, clock)
        sealed = self._secrets.seal("decoy", ids.secret("ifd"))
        self._decoy = TokenRow("decoy", "", "", b"", "", (), 0, sealed=sealed)
        self._callers = KnownCallers(clock, CACHED_MAX)
        self._jwts = KnownCallers(clock, CACHED_MAX)
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._local: dict[bytes, Caller] = {}
        self._changes.listen("token", self._token_changed)
        self._changes.listen("account", self._account_changed)

    def known(self, secret: str) -> Caller | None:
        """The caller behind a secret that was seen before; no database is read."""
        digest = self._secrets.digest(secret)
        return self._callers.get(digest) or self._jwts.get(digest) or self._local.get(digest)

    async def authenticate(self, secret: str) -> Caller:
        """The caller behind a secret. Raises Unauthorized."""
        caller = self.known(secret)
        if caller is not None:
            return caller
        if secret.startswith(scoped_jwt.PREFIX):
            return await self._authenticate_jwt(secret)
        digest, epoch = self._secrets.digest(secret), self._callers.epoch
        found = None
        if digest not in self._refused and len(secret) <= SECRET_CHARACTERS_MAX:
            found = await self._find(secret, digest)
        if found is None:
            self._refuse(digest, epoch)
            raise Unauthorized("Incorrect API key provided: the token is wrong or was revoked.")
        caller = self._caller(found)
        self._callers.remember(digest, caller, epoch)
        return caller

    async def create(
        self, account_id: str, name: str, scopes: tuple[str, ...]
    ) -> tuple[TokenRow, str]:
        """A new token and its secret. Raises Conflict if the account has a live one of the name."""
        async with self._changes.writing() as change:
            return await self.create_in(change, account_id, TokenWish(name, scopes))

    async def create_in(
        self, change: Change, account_id: str, wish: TokenWish
    ) -> tuple[TokenRow, str]:
        """The same with all that can be wished for, in a transaction of the caller's."""
        secret = ids.secret("ifd")
        return await self._store(change, account_id, wish, secret), secret

    async def list(self, account_id: str, person_id: str | None = None) -> Sequence[TokenRow]:
        """The account's live tokens, or those of one person in it."""
        async with self._database.reading() as connection:
            return await tokens.of_account(connection, account_id, person_id)

    async def get(self, account_id: str, token_id: str, person_id: str | None = None) -> TokenRow:
        """One of them. Raises NotFound."""
        async with self._database.reading() as connection:
            row = await tokens.by_id(connection, account_id, token_id, person_id)
        if row is None:
            raise NotFound("No such token.")
        return row

    async def revoke(self, account_id: str, token_id: str, person_id: str | None = None) -> None:
        """End a token and its JWTs; effective here when this returns. Raises NotFound."""
        async with self._changes.writing() as change:
            await self.revoke_in(change, account_id, token_id, person_id)

    async def revoke_in(
        self, change: Change, account_id: str, token_id: str, person_id: str | None = None
    ) -> None:
        """The same, in a transaction of the caller's."""
        now = self._clock.unix_ns()
        if not await tokens.revoke(change.connection, account_id, token_id, now, person_id):
            raise NotFound("No such token.")
        change.touch("token", token_id)

    def signing_secret(self, row: TokenRow) -> bytes | None:
        """What the token's JWTs are signed with; None while it was not used since 0005."""
        return self._secrets.unseal(row)

    async def inspect_jwt(self, credential: str) -> tuple[TokenRow, scoped_jwt.Grant]:
        """The token behind a JWT and what it allows, also when it has expired.

        Raises Unauthorized.
        """
        jwt = scoped_jwt.take_apart(credential)
        found, secret = await self._signer(jwt)
        scoped_jwt.check(jwt, secret)
        grant = scoped_jwt.read(jwt, self._clock.unix_ns(), expired_too=True)
        assert found is not None, "what verified has a token"
        return found.row, grant

    async def ensure_admin(self, bootstrap: str | None) -> str | None:
        """Make the operator's account at the first start; returns a new token's secret then.

        With a bootstrap token that one is the admin's; it replaces an earlier bootstrap token.
        """
        if bootstrap is not None and len(bootstrap) < BOOTSTRAP_CHARACTERS_MIN:
            raise BadRequest(
                f"The bootstrap token needs at least {BOOTSTRAP_CHARACTERS_MIN} characters."
            )
        account, is_new = await self._operator()
        if bootstrap is not None:
            await self._register_bootstrap(account.id, bootstrap)
            return None
        if not is_new:
            return None
        _, secret = await self.create(account.id, DEFAULT_TOKEN, (ADMIN,))
        return secret

    async def local_admin(self, secret: str | None = None) -> str:
        """A secret for this machine's command line; lives in memory until the process ends.

        Several gateways of one machine are given the same.
        """
        account, _ = await self._operator()
        secret = secret or ids.secret("ifd_local")
        caller = Caller(account.id, "tok_local", "local", frozenset({ADMIN}))
        self._local[self._secrets.digest(secret)] = caller
        return secret

    async def _find(self, secret: str, digest: bytes) -> LiveToken | None:
        """The token, moved to the current key if it lies under another or under none."""
        found = None
        async with self._database.reading() as connection:
            for tried in (digest, *self._secrets.retired_digests(secret)):
                found = found or await tokens.by_digest(connection, tried)
        if found is None:
            return None
        row = found.row
        if row.digest != digest or not self._secrets.is_current(row):
            sealed = self._secrets.seal(row.id, secret)
            # Nobody is turned away because the disk is full.
            with suppress(Unavailable):
                async with self._database.writing() as connection:
                    await tokens.reseal(connection, row.id, digest, sealed)
            row = msgspec.structs.replace(row, digest=digest, sealed=sealed)
        # The index compared bytes as they came; what counts is compared in constant time.
        return found._replace(row=row) if hmac.compare_digest(row.digest, digest) else None

    async def _authenticate_jwt(self, credential: str) -> Caller:
        digest, epoch = self._secrets.digest(credential), self._jwts.epoch
        if digest in self._refused:
            raise scoped_jwt.wrong()
        try:
            jwt = scoped_jwt.take_apart(credential)
            found, secret = await self._signer(jwt)
            scoped_jwt.check(jwt, secret)
        except Unauthorized:
            self._refuse(digest, epoch)
            raise
        # What is wrong with the claims may be right later: that is not remembered.
        grant = scoped_jwt.read(jwt, self._clock.unix_ns())
        assert found is not None, "what verified has a token"
        caller = _narrowed(self._caller(found), grant)
        self._jwts.remember(digest, caller, epoch)
        return caller

    async def _signer(self, jwt: scoped_jwt.Unverified) -> tuple[LiveToken | None, bytes | None]:
        """The token that a JWT names, and its secret."""
        async with self._database.reading() as connection:
            found = await tokens.by_name(connection, jwt.account_id, jwt.token_name)
        # As much work if there is none: how long it takes tells nobody which tokens exist.
        secret = self._secrets.unseal(self._decoy if found is None else found.row)
        return found, None if found is None else secret

    def _caller(self, found: LiveToken) -> Caller:
        """Who a live token is. Raises Unauthorized if it has expired."""
        row = found.row
        if row.expires_unix_ns is not None and row.expires_unix_ns <= self._clock.unix_ns():
            raise Unauthorized("This token has expired.")
        scopes = frozenset(row.scopes)
        if found.role is not None:
            scopes &= scopes_of(found.role, found.account_name)
        allowed = row.allowed_ips
        return Caller(
            account_id=row.account_id,
            token_id=row.id,
            token_name=row.name,
            scopes=scopes,
            models=None if row.allowed_models is None else frozenset(row.allowed_models),
            networks=None if allowed is None else tuple(ip_network(one) for one in allowed),
            expires_unix_ns=row.expires_unix_ns,
            person_id=row.person_id,
            suspended=found.suspended,
        )

    def _refuse(self, digest: bytes, epoch: int) -> None:
        if epoch == self._callers.epoch:
            self._refused[digest] = None
            if len(self._refused) > REFUSED_MAX:
                self._refused.popitem(last=False)

    async def _token_changed(self, token_id: str | None) -> None:
        self._forget(lambda caller: token_id in (None, caller.token_id))

    async def _account_changed(self, account_id: str | None) -> None:
        self._forget(lambda caller: account_id in (None, caller.account_id))

    def _forget(self, which: Callable[[Caller], bool]) -> None:
        self._callers.forget(which)
        self._jwts.forget(which)
        self._refused.clear()

    async def _operator(self) -> tuple[AccountRow, bool]:
        try:
            async with self._database.writing() as connection:
                found = await accounts.by_name(connection, ADMIN_ACCOUNT)
                if found is not None:
                    return found, False
                row = AccountRow(ids.sortable("acc"), ADMIN_ACCOUNT, self._clock.unix_ns(), None)
                await accounts.add(connection, row)
                return row, True
        except Conflict:
            # Another gateway made it in the same moment.
            return await self._operator()

    async def _register_bootstrap(self, account_id: str, secret: str) -> None:
        wish = TokenWish(BOOTSTRAP_TOKEN, (ADMIN,))
        if await self._has_bootstrap(account_id, secret):
            return
        try:
            async with self._changes.writing() as change:
                await self._store(change, account_id, wish, secret)
        except Conflict:
            # Another gateway started in the same moment, with the same token or with another one.
            await self._register_bootstrap(account_id, secret)

    async def _has_bootstrap(self, account_id: str, secret: str) -> bool:
        """True if it is there; a different one is revoked."""
        digest = self._secrets.digest(secret)
        for row in await self.list(account_id):
            if row.name == BOOTSTRAP_TOKEN:
                if hmac.compare_digest(row.digest, digest):
                    return True
                with suppress(NotFound):
                    await self.revoke(account_id, row.id)
        return False

    async def _store(
        self, change: Change, account_id: str, wish: TokenWish, secret: str
    ) -> TokenRow:
        token_id = ids.sortable("tok")
        networks, models = wish.networks, wish.models
        row = TokenRow(
            id=token_id,
            account_id=account_id,
            name=wish.name,
            digest=self._secrets.digest(secret),
            fragment=secret[-5:],
            scopes=wish.scopes,
            created_unix_ns=self._clock.unix_ns(),
            person_id=wish.person_id,
            expires_unix_ns=wish.expires_unix_ns,
            allowed_ips=None if networks is None else tuple(str(one) for one in networks),
            allowed_models=models,
            monthly_limit_nanos=wish.monthly_limit_nanos,
            sealed=self._secrets.seal(token_id, secret),
        )
        await tokens.add(change.connection, row)
        change.touch("token", token_id)
        return row


def _narrowed(caller: Caller, grant: scoped_jwt.Grant) -> Caller:
    """A token's caller with what its JWT leaves of his rights: inference, and less of it."""
    models = caller.models
    if grant.models is not None:
        models = grant.models if models is None else models & grant.models
    expires = grant.expires_unix * 1_000_000_000
    if caller.expires_unix_ns is not None:
        expires = min(expires, caller.expires_unix_ns)
    scopes = frozenset({INFERENCE_RUN}) if caller.may(INFERENCE_RUN) else frozenset[str]()
    return msgspec.structs.replace(
        caller,
        scopes=scopes,
        models=models,
        expires_unix_ns=expires,
        jwt_id=grant.jwt_id,
        jwt_limit_nanos=grant.limit_nanos,
    )
