"""Scoped JWTs, made by the server for a token of the account, and looked into (deepinfra-api 9.3).

Clients that hold a token can make them without asking anybody.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta

from inferd import ids
from inferd.access import audit, scoped_jwt
from inferd.access.caller import ACCOUNT_ADMIN, ADMIN, INFERENCE_RUN, MEMBER, Caller
from inferd.access.narrowing import signed_until
from inferd.access.scoped_jwt import LIFE_SECONDS_MAX, MODELS_MAX, Claims
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.manage.tokens import Dollars, Model, Name
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from inferd.money import usd
from inferd.storage import purses, tokens
from inferd.storage.rows import TokenRow

_NS = 1_000_000_000


class ScopedJwtIn(msgspec.Struct, frozen=True):
    """The request body."""

    api_key_name: Name
    """The token that signs, pays and, when it is revoked, ends it."""
    models: Annotated[list[Model], Meta(min_length=1, max_length=MODELS_MAX)] | None = None
    """Models that it may call; absent: all that the token may."""
    expires_delta: Annotated[int, Meta(ge=1, le=LIFE_SECONDS_MAX)] | None = None
    """Seconds from now; absent: a year, or as long as the token that asks."""
    expires_at: Annotated[int, Meta(ge=1)] | None = None
    """Unix seconds, instead of `expires_delta`."""
    spending_limit: Dollars | None = None
    """Dollars that it may cost in its life."""


class ScopedJwtOut(msgspec.Struct, frozen=True):
    """A credential; it is stored nowhere."""

    token: str


class ScopedJwtQuery(msgspec.Struct, frozen=True):
    """The JWT to look into."""

    jwtoken: Annotated[str, Meta(max_length=scoped_jwt.CHARACTERS_MAX + 4)]


class ScopedJwtInfo(msgspec.Struct, frozen=True):
    """What a JWT allows."""

    expires_at: int
    models: list[str] | None
    """null: all that its token may."""
    spending_limit: float | None
    spending_current: float


_DECODER = msgspec.json.Decoder(ScopedJwtIn)
_QUERIES = msgspec.json.Decoder(ScopedJwtQuery)


async def create_scoped_jwt(exchange: Exchange, services: Services) -> None:
    """POST /v1/scoped-jwt."""
    wire = await inference.read(exchange, services, _DECODER)
    caller = exchange.caller
    async with services.database.reading() as connection:
        found = await tokens.by_name(connection, caller.account_id, wire.api_key_name)
        if found is None or not _may_sign_with(caller, found.row):
            raise NotFound("There is no token of this name.", param="api_key_name")
        row, now = found.row, services.clock.unix_ns() // _NS
        until = await signed_until(connection, caller, row, _expiry(wire, now))
    if not {INFERENCE_RUN, ADMIN} & set(row.scopes):
        raise Forbidden("This token may not run inference, nor may its JWTs.")
    secret = services.tokens.signing_secret(row)
    if secret is None:
        raise Conflict("This token was made before JWTs were known; call something with it first.")
    limit = wire.spending_limit
    claims = Claims(
        exp=min(now + LIFE_SECONDS_MAX, until or now + LIFE_SECONDS_MAX),
        sub=row.account_id,
        models=None if wire.models is None else list(dict.fromkeys(wire.models)),
        jti=ids.sortable("jwt"),
        spending_limit=None if limit is None else Decimal(repr(limit)),
    )
    jwt = scoped_jwt.mint(row.account_id, row.name, secret, claims)
    async with services.database.writing() as connection:
        detail = {"jti": claims.jti, "exp": claims.exp, "models": claims.models}
        await audit.write(connection, caller, "scoped_jwt.create", row.id, detail)
    await exchange.respond(200, msgspec.json.encode(ScopedJwtOut(jwt)))


async def show_scoped_jwt(exchange: Exchange, services: Services) -> None:
    """GET /v1/scoped-jwt?jwtoken=…; what stands in the query is never logged."""
    given = parse_qs(exchange.query.decode("latin-1")).get("jwtoken", [""])[0]
    if not given:
        raise BadRequest("jwtoken is missing.", param="jwtoken")
    await _show(exchange, services, given)


async def inspect_scoped_jwt(exchange: Exchange, services: Services) -> None:
    """POST /v1/scoped-jwt/inspect."""
    wire = await inference.read(exchange, services, _QUERIES)
    await _show(exchange, services, wire.jwtoken)


async def _show(exchange: Exchange, services: Services, jwt: str) -> None:
    caller = exchange.caller
    try:
        row, grant = await services.tokens.inspect_jwt(jwt)
    except Unauthorized as error:
        raise NotFound("No such JWT.", detail=error.message) from None
    if row.account_id != caller.account_id or not _may_sign_with(caller, row):
        raise NotFound("No such JWT.")
    async with services.database.reading() as connection:
        purse = f"jwt:{grant.jwt_id}"
        spent = (await purses.spent(connection, [purse])).get(purse, 0)
    body = ScopedJwtInfo(
        expires_at=grant.expires_unix,
        models=None if grant.models is None else sorted(grant.models),
        spending_limit=None if grant.limit_nanos is None else usd(grant.limit_nanos),
        spending_current=usd(spent),
    )
    await exchange.respond(200, msgspec.json.encode(body))


def _may_sign_with(caller: Caller, row: TokenRow) -> bool:
    """An admin with all tokens of the account, a member with his own, a token with itself."""
    if caller.may(ACCOUNT_ADMIN) or caller.token_id == row.id:
        return True
    return caller.may(MEMBER) and caller.person_id is not None and caller.person_id == row.person_id


def _expiry(wire: ScopedJwtIn, now: int) -> int | None:
    """When it shall end, if anything was said."""
    if wire.expires_at is not None and wire.expires_delta is not None:
        raise BadRequest("Give expires_at or expires_delta, not both.", param="expires_at")
    if wire.expires_delta is not None:
        return now + wire.expires_delta
    if wire.expires_at is None:
        return None
    if not now < wire.expires_at <= now + LIFE_SECONDS_MAX:
        raise BadRequest("expires_at is not within the next year.", param="expires_at")
    return wire.expires_at


def scoped_jwt_routes() -> list[Route]:
    """What `table.ROUTES` takes over."""
    at, access, shape = "/v1/scoped-jwt", "token", "native"
    look = "What a scoped JWT allows and has spent"
    query, made, info = ScopedJwtQuery, ScopedJwtOut, ScopedJwtInfo
    make = "Make a scoped JWT for a token of the account"
    return [
        Route("POST", at, create_scoped_jwt, access, shape, make, ScopedJwtIn, made),
        Route("GET", at, show_scoped_jwt, access, shape, look, gives=info),
        Route("POST", f"{at}/inspect", inspect_scoped_jwt, access, shape, look, query, info),
    ]
