"""API tokens of the caller's account (deepinfra-api 9.2). A secret is shown once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.access.caller import ADMIN, INFERENCE_RUN
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.services import Services
from inferd.errors import NotFound
from inferd.storage.rows import TokenRow


class TokenIn(msgspec.Struct, frozen=True):
    """The request body."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    scopes: list[Literal["inference:run", "admin"]] | None = None
    """Absent: inference only."""


class TokenOut(msgspec.Struct, frozen=True):
    """A token; the secret is whole only in the answer to its creation."""

    token: str
    token_id: str
    name: str
    created_at: str
    fragment: str
    scopes: list[str]
    allowed_ips: None = None


class TokenList(msgspec.Struct, frozen=True):
    """Documents the array of `GET /v1/api-tokens`."""

    tokens: list[TokenOut]


_DECODER = msgspec.json.Decoder(TokenIn)


def _token_out(row: TokenRow, secret: str | None) -> TokenOut:
    created = datetime.fromtimestamp(row.created_unix_ns / 1e9, UTC)
    return TokenOut(
        token=secret if secret is not None else f"…{row.fragment}",
        token_id=row.id,
        name=row.name,
        created_at=created.isoformat(timespec="seconds"),
        fragment=row.fragment,
        scopes=list(row.scopes),
    )


async def list_tokens(exchange: Exchange, services: Services) -> None:
    """Live tokens, masked."""
    rows = await services.tokens.list(exchange.caller.account_id)
    await exchange.respond(200, msgspec.json.encode([_token_out(row, None) for row in rows]))


async def create_token(exchange: Exchange, services: Services) -> None:
    """A new token."""
    wire = await inference.read(exchange, services, _DECODER)
    scopes = tuple(dict.fromkeys(wire.scopes or [INFERENCE_RUN]))
    assert set(scopes) <= {INFERENCE_RUN, ADMIN}, "the decoder lets nothing else through"
    row, secret = await services.tokens.create(exchange.caller.account_id, wire.name, scopes)
    await exchange.respond(200, msgspec.json.encode(_token_out(row, secret)))


async def show_token(exchange: Exchange, services: Services) -> None:
    """One token, masked."""
    rows = await services.tokens.list(exchange.caller.account_id)
    for row in rows:
        if row.id == exchange.rest:
            await exchange.respond(200, msgspec.json.encode(_token_out(row, None)))
            return
    raise NotFound("No such token.")


async def revoke_token(exchange: Exchange, services: Services) -> None:
    """End a token, at once."""
    await services.tokens.revoke(exchange.caller.account_id, exchange.rest)
    await exchange.respond(200, b"{}")
