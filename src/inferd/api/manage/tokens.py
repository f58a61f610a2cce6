"""API tokens of the caller's account (deepinfra-api 9.2). A secret is shown once.

A member sees and manages his own tokens, an admin all of the account.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_network
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.access import audit
from inferd.access.caller import ACCOUNT_ADMIN, ADMIN, INFERENCE_RUN, MEMBER, Caller, Network
from inferd.access.narrowing import narrowed
from inferd.access.scopes import grantable, scopes_of
from inferd.access.tokens import TokenWish
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import BadRequest, Forbidden, Gone
from inferd.money import NANOS_PER_USD, usd
from inferd.storage import accounts, people
from inferd.storage.changes import Change
from inferd.storage.rows import TokenRow

_NS = 1_000_000_000
UNIX_MAX = 9_000_000_000
"""In 2255; later nanoseconds do not fit a column."""
MODEL_PATTERN = r"^[^\s/]+/[^\s]+$"

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Scope = Literal["inference:run", "account:member", "account:admin", "admin"]
Model = Annotated[str, Meta(max_length=300, pattern=MODEL_PATTERN)]
Cidr = Annotated[str, Meta(max_length=50)]
Seconds = Annotated[int, Meta(ge=1, le=UNIX_MAX)]
Dollars = Annotated[float, Meta(ge=0, le=1_000_000_000)]


class TokenIn(msgspec.Struct, frozen=True):
    """The request body."""

    name: Name
    scopes: Annotated[list[Scope], Meta(max_length=4)] | None = None
    """Absent or empty: inference only."""
    expires_at: Seconds | None = None
    """Unix seconds; absent: never, or with the token that makes it."""
    expires_delta: Seconds | None = None
    """Seconds from now, instead of `expires_at`."""
    allowed_ips: Annotated[list[Cidr], Meta(min_length=1, max_length=100)] | None = None
    """Networks that it may be used from, such as 10.0.0.0/8 or 2001:db8::1; absent: from
    where the token may that makes it."""
    allowed_models: Annotated[list[Model], Meta(min_length=1, max_length=100)] | None = None
    """Models that it may call; absent: any."""
    monthly_limit: Dollars | None = None
    """Dollars for each calendar month, UTC; 0 blocks, absent: no limit."""
    person_id: Annotated[str, Meta(max_length=100)] | None = None
    """Whose it is, if an admin makes it for a member; it ends with the membership."""


class TokenOut(msgspec.Struct, frozen=True):
    """A token; the secret is whole only in the answer to its creation."""

    token: str
    token_id: str
    name: str
    created_at: str
    fragment: str
    scopes: list[str]
    allowed_ips: list[str] | None
    allowed_models: list[str] | None
    expires_at: int | None
    """Unix seconds."""
    monthly_limit: float | None
    person_id: str | None


class TokenList(msgspec.Struct, frozen=True):
    """Documents the array of `GET /v1/api-tokens`."""

    tokens: list[TokenOut]


_DECODER = msgspec.json.Decoder(TokenIn)


def token_out(row: TokenRow, secret: str | None) -> TokenOut:
    """A token as it is shown."""
    created = datetime.fromtimestamp(row.created_unix_ns / _NS, UTC)
    allowed_ips, models, limit = row.allowed_ips, row.allowed_models, row.monthly_limit_nanos
    return TokenOut(
        token=secret if secret is not None else f"…{row.fragment}",
        token_id=row.id,
        name=row.name,
        created_at=created.isoformat(timespec="seconds"),
        fragment=row.fragment,
        scopes=list(row.scopes),
        allowed_ips=None if allowed_ips is None else list(allowed_ips),
        allowed_models=None if models is None else list(models),
        expires_at=None if row.expires_unix_ns is None else row.expires_unix_ns // _NS,
        monthly_limit=None if limit is None else usd(limit),
        person_id=row.person_id,
    )


def whose(caller: Caller) -> str | None:
    """The person whose tokens the caller manages; None: everybody's. Raises Forbidden."""
    if caller.may(ACCOUNT_ADMIN):
        return None
    if caller.person_id is None:
        raise Forbidden("This token belongs to nobody, so it manages no tokens.")
    return caller.person_id


async def list_tokens(exchange: Exchange, services: Services) -> None:
    """Live tokens, masked."""
    caller = exchange.caller
    rows = await services.tokens.list(caller.account_id, whose(caller))
    await exchange.respond(200, msgspec.json.encode([token_out(row, None) for row in rows]))


async def create_token(exchange: Exchange, services: Services) -> None:
    """A new token."""
    wire = await inference.read(exchange, services, _DECODER)
    caller = exchange.caller
    owner = whose(caller)
    if owner is not None and wire.person_id not in (None, owner):
        raise Forbidden("A member makes tokens for himself alone.")
    wish = wish_of(wire, services.clock.unix_ns(), owner or wire.person_id)
    check_scopes(wish, grantable(caller))
    async with services.changes.writing() as change:
        row, secret = await add_token(change, services, caller, caller.account_id, wish)
    await exchange.respond(200, msgspec.json.encode(token_out(row, secret)))


async def add_token(
    change: Change, services: Services, caller: Caller, account_id: str, wish: TokenWish
) -> tuple[TokenRow, str]:
    """Make it, at most what its maker is, and write down who did.

    Raises Conflict, BadRequest, Forbidden.
    """
    wish = await narrowed(change.connection, caller, wish)
    if wish.person_id is not None:
        account = await accounts.by_id(change.connection, account_id)
        role = await people.role_of(change.connection, account_id, wish.person_id)
        if role is None or account is None:
            raise BadRequest("person_id is nobody of this account.", param="person_id")
        check_scopes(wish, scopes_of(role, account.name))
    made = await services.tokens.create_in(change, account_id, wish)
    detail = {"name": wish.name, "scopes": wish.scopes, "person_id": wish.person_id}
    await audit.write(change.connection, caller, "token.create", made[0].id, detail)
    return made


async def show_token(exchange: Exchange, services: Services) -> None:
    """One token, masked."""
    caller = exchange.caller
    row = await services.tokens.get(caller.account_id, exchange.rest, whose(caller))
    await exchange.respond(200, msgspec.json.encode(token_out(row, None)))


async def revoke_token(exchange: Exchange, services: Services) -> None:
    """End a token and the JWTs that it signed, at once."""
    caller, token_id = exchange.caller, exchange.rest
    async with services.changes.writing() as change:
        await services.tokens.revoke_in(change, caller.account_id, token_id, whose(caller))
        await audit.write(change.connection, caller, "token.revoke", token_id)
    await exchange.respond(200, b"{}")


async def secret_in_path(exchange: Exchange, services: Services) -> None:
    """The old forms with the secret in the path."""
    raise Gone(
        "A secret does not belong into a URL, where logs keep it. Use the token's id: "
        "/v1/api-tokens/id/{token_id}, /payment/usage/id/{token_id}."
    )


def wish_of(wire: TokenIn, now_unix_ns: int, person_id: str | None) -> TokenWish:
    """What is asked for. Raises BadRequest."""
    scopes = tuple(dict.fromkeys(wire.scopes or [INFERENCE_RUN]))
    if wire.allowed_models is not None and scopes != (INFERENCE_RUN,):
        raise BadRequest(
            "A token that manages cannot be held to some models: it makes others for any.",
            param="allowed_models",
        )
    networks, models = wire.allowed_ips, wire.allowed_models
    return TokenWish(
        name=wire.name,
        scopes=scopes,
        person_id=person_id,
        expires_unix_ns=_expiry(wire, now_unix_ns),
        networks=None if networks is None else tuple(map(_network, dict.fromkeys(networks))),
        models=None if models is None else tuple(dict.fromkeys(models)),
        monthly_limit_nanos=_nanos(wire.monthly_limit),
    )


def check_scopes(wish: TokenWish, allowed: frozenset[str]) -> None:
    """Raise Forbidden for a scope that is not allowed, BadRequest for one that needs a person."""
    beyond = set(wish.scopes) - allowed
    if beyond:
        raise Forbidden(f"The scope {min(beyond)!r} is not yours to give.", param="scopes")
    manages_own = MEMBER in wish.scopes and not {ACCOUNT_ADMIN, ADMIN} & set(wish.scopes)
    if manages_own and wish.person_id is None:
        raise BadRequest(
            "A token that manages its owner's tokens needs a person_id.", param="person_id"
        )


def _expiry(wire: TokenIn, now_unix_ns: int) -> int | None:
    if wire.expires_at is not None and wire.expires_delta is not None:
        raise BadRequest("Give expires_at or expires_delta, not both.", param="expires_at")
    if wire.expires_delta is not None:
        return min(now_unix_ns + wire.expires_delta * _NS, UNIX_MAX * _NS)
    if wire.expires_at is None:
        return None
    if wire.expires_at * _NS <= now_unix_ns:
        raise BadRequest("expires_at is in the past.", param="expires_at")
    return wire.expires_at * _NS


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise BadRequest(
            f"allowed_ips: {text!r} is no address and no network such as 10.0.0.0/8.",
            param="allowed_ips",
        ) from None


def _nanos(dollars: float | None) -> int | None:
    # repr is what the caller wrote, without the tail of its binary form.
    return None if dollars is None else int(Decimal(repr(dollars)) * NANOS_PER_USD)


def token_routes() -> list[Route]:
    """What `table.ROUTES` takes over."""
    at, one = "/v1/api-tokens", "/v1/api-tokens/id/{rest}"
    access, shape = "member", "native"
    old = "Always 410: a secret does not belong into a URL"
    return [
        Route("GET", at, list_tokens, access, shape, "API tokens, masked"),
        Route("POST", at, create_token, access, shape, "Create an API token", TokenIn, TokenOut),
        Route("GET", one, show_token, access, shape, "One API token, masked", gives=TokenOut),
        Route("DELETE", one, revoke_token, access, shape, "Revoke an API token, at once"),
        *(
            Route(method, f"{at}/{{rest}}", secret_in_path, "token", shape, old)
            for method in ("GET", "DELETE", "POST")
        ),
    ]
