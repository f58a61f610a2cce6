"""OpenID Connect with one provider: code flow with PKCE, state and nonce.

Authlib decides what a valid discovery document and a valid ID token are; this module keeps the
order of steps. Authlib is in the extra `sign-in` and has no types, so it is loaded by name.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from inferd.access.openid_http import Document, ProviderHttp, is_safe
from inferd.clock import Clock
from inferd.errors import Forbidden, InferdError, Unauthorized, Unavailable, UpstreamFailed

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "Ed25519")
"""Of ID tokens. Never none, and never a shared secret as the key of a signature."""
_KEY_KINDS = ("RSA", "EC", "OKP")
DOCUMENT_SECONDS_MAX = 300
KEYS_SECONDS_MIN = 10
"""How often the keys are read anew at most, whatever key ids the tokens name."""
LEEWAY_SECONDS = 60
_NS = 1_000_000_000

EXTRA_MISSING = (
    "Signing in through a provider needs the extra `sign-in`: pip install 'inferd[sign-in]'."
)


class TeamOfGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a group of the provider belongs."""

    team: str
    role: Literal["admin", "member"] = "member"


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a provider is registered with."""

    issuer: str
    client_id: str
    client_secret: str = ""
    """Empty: a public client, PKCE alone."""
    title: str = ""
    """For people; the provider's name by default."""
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    make_accounts: bool = False
    """Whom the provider vouches for and nobody here knows gets an account of his own."""
    email_domains: tuple[str, ...] = ()
    """Addresses that may sign in; empty: all."""
    groups_claim: str = "groups"
    teams: Mapping[str, TeamOfGroup] = {}
    """Group → team. A person leaves the teams of the groups that he is not in."""


class Claims(msgspec.Struct, frozen=True):
    """Whom the provider vouches for."""

    issuer: str
    subject: str
    email: str
    """In lower case; the provider has verified it."""
    name: str
    picture: str | None
    groups: frozenset[str]


class Outbound(msgspec.Struct, frozen=True):
    """What one sign-in sends along, and expects back."""

    redirect_uri: str
    state: str
    nonce: str
    verifier: str


class OpenId:
    """The dance with one provider."""

    def __init__(self, name: str, provider: Provider, clock: Clock) -> None:
        if importlib.util.find_spec("authlib") is None:
            raise Unavailable(EXTRA_MISSING)
        self.name = name
        self.provider = provider
        self._clock = clock
        self._http = ProviderHttp(name)
        self._document: tuple[float, Document] | None = None
        # A key set of joserfc, Authlib's own core for signatures.
        self._keys: tuple[float, Any] | None = None

    async def authorization_url(self, out: Outbound) -> str:
        """Where the browser goes. Raises UpstreamFailed."""
        document = await self._discover()
        parameters: Any = importlib.import_module("authlib.oauth2.rfc6749.parameters")
        pkce: Any = importlib.import_module("authlib.oauth2.rfc7636")
        url: str = parameters.prepare_grant_uri(
            document["authorization_endpoint"],
            client_id=self.provider.client_id,
            response_type="code",
            redirect_uri=out.redirect_uri,
            scope=" ".join(self.provider.scopes),
            state=out.state,
            nonce=out.nonce,
            code_challenge=pkce.create_s256_code_challenge(out.verifier),
            code_challenge_method="S256",
        )
        return url

    async def claims(self, code: str, out: Outbound) -> Claims:
        """Change the code for an ID token and check it. Raises Unauthorized, UpstreamFailed."""
        document = await self._discover()
        answer = await self._exchange(document, code, out)
        token, access = answer.get("id_token"), answer.get("access_token")
        if not isinstance(token, str):
            raise self._refused("the token answer has no ID token")
        claims = await self._checked(token, access, out.nonce)
        if "email" not in claims and isinstance(access, str):
            claims |= await self._user_info(document, access, claims["sub"])
        return self._person(claims)

    async def _discover(self) -> Document:
        now = self._clock.seconds()
        if self._document is not None and now - self._document[0] < DOCUMENT_SECONDS_MAX:
            return self._document[1]
        discovery: Any = importlib.import_module("authlib.oidc.discovery")
        url: str = discovery.get_well_known_url(self.provider.issuer, external=True)
        document = await self._http.get(url)
        self._check(document)
        self._document = (now, document)
        return document

    def _check(self, document: Document) -> None:
        if document.get("issuer") != self.provider.issuer:
            raise self._failed("the discovery document is another issuer's")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not is_safe(document.get(name)):
                raise self._failed(f"{name} is no https URL")
        methods = document.get("code_challenge_methods_supported")
        if isinstance(methods, list) and "S256" not in methods:
            raise self._failed("it does not know PKCE with S256")

    async def _exchange(self, document: Document, code: str, out: Outbound) -> Document:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": out.redirect_uri,
            "code_verifier": out.verifier,
        }
        provider = self.provider
        ways = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        login = None
        if provider.client_secret and "client_secret_basic" in ways:
            login = (provider.client_id, provider.client_secret)
        else:
            form["client_id"] = provider.client_id
            if provider.client_secret:
                form["client_secret"] = provider.client_secret
        try:
            return await self._http.post(document["token_endpoint"], form, login=login)
        except UpstreamFailed as error:
            if error.detail and error.detail.startswith("status 4"):
                raise self._refused(error.detail) from None
            raise

    async def _checked(self, token: str, access: object, nonce: str) -> Document:
        """The claims of an ID token that is this provider's, for us, for this sign-in, and new."""
        core: Any = importlib.import_module("authlib.oidc.core")
        errors: Any = importlib.import_module("joserfc.errors")
        decoded = await self._verified(token)
        provider = self.provider
        claims: Any = core.CodeIDToken(
            decoded.claims,
            decoded.header,
            {
                "iss": {"essential": True, "value": provider.issuer},
                "aud": {"essential": True, "value": provider.client_id},
            },
            {"nonce": nonce, "client_id": provider.client_id, "access_token": access},
        )
        try:
            claims.validate(now=self._clock.unix_ns() // _NS, leeway=LEEWAY_SECONDS)
        except (errors.JoseError, ValueError, TypeError) as error:
            raise self._refused(f"the ID token is not valid: {type(error).__name__}") from None
        return dict(claims)

    # The library's token.
    async def _verified(self, token: str) -> Any:
        jwt: Any = importlib.import_module("joserfc.jwt")
        errors: Any = importlib.import_module("joserfc.errors")
        for is_last in (False, True):
            keys = await self._key_set(anew=is_last)
            try:
                return jwt.decode(token, keys, algorithms=list(ALGORITHMS))
            except (errors.JoseError, ValueError, TypeError, KeyError) as error:
                # A key that the provider has begun to use since we looked.
                if is_last:
                    name = type(error).__name__
                    raise self._refused(f"the ID token cannot be verified: {name}") from None
        raise AssertionError

    async def _key_set(self, *, anew: bool) -> Any:
        now, age_max = self._clock.seconds(), DOCUMENT_SECONDS_MAX
        if anew:
            age_max = KEYS_SECONDS_MIN
        if self._keys is not None and now - self._keys[0] < age_max:
            return self._keys[1]
        document = await self._http.get((await self._discover())["jwks_uri"])
        jwk: Any = importlib.import_module("joserfc.jwk")
        keys = [key for key in cast("list[Any]", document.get("keys") or []) if _is_signing(key)]
        try:
            key_set = jwk.KeySet.import_key_set({"keys": keys})
        except (ValueError, TypeError, KeyError) as error:
            raise self._failed(f"its keys are unreadable: {type(error).__name__}") from None
        self._keys = (now, key_set)
        return key_set

    async def _user_info(self, document: Document, access: str, subject: str) -> Document:
        url = document.get("userinfo_endpoint")
        if not is_safe(url):
            return {}
        told = await self._http.get(str(url), bearer=access)
        if told.get("sub") != subject:
            raise self._refused("the user info is somebody else's")
        return told

    def _person(self, claims: Document) -> Claims:
        email, subject = claims.get("email"), claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise self._refused("the subject is no text of 255 characters at most")
        if not isinstance(email, str) or email.count("@") != 1 or len(email) > 320:
            raise Forbidden(f"{self._title} did not tell your e-mail address.")
        if claims.get("email_verified") is not True:
            raise Forbidden(f"{self._title} has not verified your e-mail address.")
        email = email.strip().lower()
        domains = self.provider.email_domains
        if domains and email.rpartition("@")[2] not in domains:
            raise Forbidden("E-mail addresses of this domain may not sign in here.")
        name, picture = claims.get("name"), claims.get("picture")
        groups: Any = claims.get(self.provider.groups_claim)
        return Claims(
            issuer=self.provider.issuer,
            subject=subject,
            email=email,
            name=name[:200] if isinstance(name, str) and name else email.partition("@")[0],
            picture=picture if isinstance(picture, str) and len(picture) <= 2000 else None,
            groups=_texts(groups),
        )

    @property
    def _title(self) -> str:
        return self.provider.title or self.name

    def _refused(self, why: str) -> InferdError:
        return Unauthorized("The sign-in was not accepted; begin anew.", detail=why)

    def _failed(self, why: str) -> InferdError:
        sentence = f"The sign-in provider {self.name} does not answer as it should."
        return UpstreamFailed(sentence, detail=why)


def _is_signing(key: object) -> bool:
    # A provider's JSON.
    fields: Any = key
    return isinstance(key, dict) and fields.get("kty") in _KEY_KINDS and fields.get("use") != "enc"


def _texts(groups: Any) -> frozenset[str]:
    if not isinstance(groups, list):
        return frozenset()
    return frozenset(group for group in cast("list[Any]", groups) if isinstance(group, str))
