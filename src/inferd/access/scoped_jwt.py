"""Scoped JWTs: short-lived, narrowed credentials that a token's holder makes himself.

    jwt:<header>.<claims>.<signature>      HS256, the key is the API token as it is written
    header  {"alg": "HS256", "kid": "{uid}:{base64 of the token's name}", "typ": "JWT"}
    claims  {"sub": uid, "exp": Unix seconds, "model": name or list, "spending_limit": USD}

`models` is another spelling of `model`.

Only this one algorithm is known, so there is nothing to confuse it with. Everything here is pure:
the token behind `kid` is looked up elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from inferd.errors import Unauthorized
from inferd.money import NANOS_MAX, NANOS_PER_USD

PREFIX = "jwt:"
CHARACTERS_MAX = 8192
LIFE_SECONDS_MAX = 365 * 86_400
SKEW_SECONDS = 86_400
"""How much longer than a year a JWT may live for those whose clocks differ."""
MODELS_MAX = 100
_WRONG = "Incorrect API key provided: the scoped JWT is wrong, or its token was revoked."

T = TypeVar("T")
Names = Annotated[list[str], Meta(max_length=MODELS_MAX)]


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first part."""

    alg: str
    kid: str
    typ: str | None = None
    crit: msgspec.Raw | None = None
    """Extensions that must be understood; none is."""


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """The second part."""

    exp: int | float
    sub: str | None = None
    model: str | Names | None = None
    models: str | Names | None = None
    nbf: int | float | None = None
    jti: str | None = None
    spending_limit: Decimal | None = None


class Unverified(msgspec.Struct, frozen=True):
    """A JWT that was taken apart; nothing of it may be believed yet."""

    account_id: str
    token_name: str
    signed: bytes
    signature: bytes
    claims: bytes

    @property
    def jwt_id(self) -> str:
        """The name of its spending counter: the same however the signature is written."""
        return blake2b(self.signed, digest_size=16).hexdigest()


class Grant(msgspec.Struct, frozen=True):
    """What a verified JWT allows."""

    jwt_id: str
    expires_unix: int
    models: frozenset[str] | None
    limit_nanos: int | None


_HEADER = msgspec.json.Decoder(Header)
_CLAIMS = msgspec.json.Decoder(Claims)
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def wrong() -> Unauthorized:
    """The one answer to everything that does not verify."""
    return Unauthorized(_WRONG)


def take_apart(credential: str) -> Unverified:
    """Read without believing. Raises Unauthorized."""
    text = credential.removeprefix(PREFIX)
    parts = text.split(".")
    if len(text) > CHARACTERS_MAX or len(parts) != 3 or not text.isascii():
        raise wrong()
    header = _decoded(_HEADER, _from_base64url(parts[0]))
    if header.alg != "HS256" or header.crit is not None:
        raise wrong()
    account_id, _, encoded = header.kid.rpartition(":")
    name = _name(encoded)
    if "\0" in account_id + name:
        raise wrong()
    return Unverified(
        account_id=account_id,
        token_name=name,
        signed=f"{parts[0]}.{parts[1]}".encode(),
        signature=_from_base64url(parts[2]),
        claims=_from_base64url(parts[1]),
    )


def check(jwt: Unverified, secret: bytes | None) -> None:
    """Raise Unauthorized unless this secret signed it.

    Without a secret the same work is done, for nothing: how long it takes tells nobody what exists.
    """
    expected = hmac.digest(secret or b"no secret", jwt.signed, "sha256")
    if not hmac.compare_digest(expected, jwt.signature) or secret is None:
        raise wrong()


def read(jwt: Unverified, now_unix_ns: int, *, expired_too: bool = False) -> Grant:
    """What a checked JWT allows now. Raises Unauthorized."""
    claims = _decoded(_CLAIMS, jwt.claims)
    if claims.exp < 0 or (claims.sub is not None and claims.sub != jwt.account_id):
        raise wrong()
    now = now_unix_ns / 1e9
    if claims.exp <= now and not expired_too:
        raise Unauthorized("This scoped JWT has expired.")
    if claims.exp > now + LIFE_SECONDS_MAX + SKEW_SECONDS:
        raise Unauthorized("This scoped JWT expires in more than a year.")
    if claims.nbf is not None and claims.nbf > now:
        raise Unauthorized("This scoped JWT is not valid yet.")
    return Grant(jwt.jwt_id, int(claims.exp), _models(claims), _limit(claims.spending_limit))


def mint(account_id: str, token_name: str, secret: bytes, claims: Claims) -> str:
    """A signed JWT, as clients make it themselves."""
    kid = f"{account_id}:{base64.b64encode(token_name.encode()).decode()}"
    header = _to_base64url(_ENCODER.encode(Header("HS256", kid, "JWT")))
    signed = header + b"." + _to_base64url(_ENCODER.encode(claims))
    signature = _to_base64url(hmac.digest(secret, signed, "sha256"))
    return PREFIX + (signed + b"." + signature).decode()


def _models(claims: Claims) -> frozenset[str] | None:
    """Both spellings, string or list; of two claims what stands in both."""
    allowed: frozenset[str] | None = None
    for claim in (claims.model, claims.models):
        if claim is not None:
            names = frozenset([claim] if isinstance(claim, str) else claim)
            allowed = names if allowed is None else allowed & names
    return allowed


def _limit(dollars: Decimal | None) -> int | None:
    if dollars is None:
        return None
    if not dollars.is_finite() or dollars < 0 or dollars > NANOS_MAX // NANOS_PER_USD:
        raise Unauthorized("The spending limit of this scoped JWT is not an amount of dollars.")
    return int(dollars * NANOS_PER_USD)


def _name(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        raise wrong() from None


def _decoded(decoder: msgspec.json.Decoder[T], content: bytes) -> T:
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise wrong() from None


def _from_base64url(part: str) -> bytes:
    try:
        content = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise wrong() from None
    # Unused bits would let one signature be written in four ways.
    if _to_base64url(content) != part.encode():
        raise wrong()
    return content


def _to_base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
