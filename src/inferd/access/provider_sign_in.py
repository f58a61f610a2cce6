"""Signing in through OpenID Connect providers: out to the provider, and back once.

What goes out is bound to the browser by a cookie and to this installation by a row that is taken
when the browser comes back; the code's verifier and the nonce never leave that row.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from inferd.access.changes import Changes
from inferd.access.identities import Identities
from inferd.access.openid import OpenId, Outbound, Provider
from inferd.access.sessions import NewSession, Sessions, digest_of
from inferd.clock import Clock
from inferd.errors import NotFound, TooManyRequests, Unauthorized
from inferd.storage import sign_in
from inferd.storage.database import Database
from inferd.storage.sign_in import SignInRow

SECONDS_MAX = 600
"""How long a person may take at the provider."""
UNDER_WAY_MAX = 10_000
"""Browsers that are out at once; strangers send them, so there is an end to it."""
_NS = 1_000_000_000
_BEGIN_ANEW = "The sign-in was not accepted; begin anew."


class Departure(NamedTuple):
    """Where the browser goes, and what it keeps in a cookie meanwhile."""

    url: str
    browser_secret: str


class Arrival(NamedTuple):
    """What the browser brings back."""

    state: str
    code: str
    issuer: str | None
    """`iss` of RFC 9207, if the provider sends it."""
    browser_secret: str
    redirect_uri: str
    address: str


class ProviderSignIn:
    """All providers."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        sessions: Sessions,
        providers: Mapping[str, Provider],
        changes: Changes,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sessions = sessions
        self._changes = changes
        self._providers = {
            name: OpenId(name, provider, clock) for name, provider in providers.items()
        }
        self._identities = Identities(clock)

    def titles(self) -> Mapping[str, str]:
        """Name → what people read."""
        return {name: one.provider.title or name for name, one in self._providers.items()}

    async def begin(self, name: str, redirect_uri: str, return_to: str) -> Departure:
        """Send a browser out. Raises NotFound, TooManyRequests, UpstreamFailed."""
        provider = self._provider(name)
        state, nonce, verifier, browser = (secrets.token_urlsafe(32) for _ in range(4))
        url = await provider.authorization_url(Outbound(redirect_uri, state, nonce, verifier))
        now = self._clock.unix_ns()
        row = SignInRow(
            state_digest=digest_of(state),
            browser_digest=digest_of(browser),
            provider=name,
            nonce=nonce,
            verifier=verifier,
            return_to=return_to,
            expires_unix_ns=now + SECONDS_MAX * _NS,
        )
        async with self._database.writing() as connection:
            await sign_in.forget_expired(connection, now)
            if await sign_in.under_way(connection) >= UNDER_WAY_MAX:
                raise TooManyRequests(
                    "Too many people are signing in; try again in a moment.",
                    retry_after_seconds=10,
                )
            await sign_in.add_sign_in(connection, row)
        return Departure(url, browser)

    async def finish(self, name: str, arrival: Arrival) -> tuple[NewSession, str]:
        """Take a browser back: its session, and where it wanted to go.

        Raises Unauthorized, Forbidden, UpstreamFailed.
        """
        provider = self._provider(name)
        row = await self._taken(name, arrival)
        if arrival.issuer is not None and arrival.issuer != provider.provider.issuer:
            raise Unauthorized(_BEGIN_ANEW, detail="the answer names another issuer")
        out = Outbound(arrival.redirect_uri, arrival.state, row.nonce, row.verifier)
        claims = await provider.claims(arrival.code, out)
        async with self._changes.writing() as change:
            person_id = await self._identities.person(change, claims, provider.provider)
            session = await self._sessions.begin(
                change.connection, person_id, name, arrival.address
            )
        return session, row.return_to

    async def _taken(self, name: str, arrival: Arrival) -> SignInRow:
        async with self._database.writing() as connection:
            row = await sign_in.take_sign_in(connection, digest_of(arrival.state))
        if row is None or row.expires_unix_ns <= self._clock.unix_ns():
            raise Unauthorized(_BEGIN_ANEW, detail="no sign-in of this state is under way")
        same_browser = hmac.compare_digest(row.browser_digest, digest_of(arrival.browser_secret))
        if not same_browser or row.provider != name:
            raise Unauthorized(_BEGIN_ANEW, detail="another browser or provider began it")
        return row

    def _provider(self, name: str) -> OpenId:
        found = self._providers.get(name)
        if found is None:
            raise NotFound("There is no such sign-in provider.")
        return found
