"""All accounts, for who runs the installation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.access import audit
from inferd.access.scopes import scopes_of
from inferd.access.tokens import DEFAULT_TOKEN, TokenWish
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.manage.me import DisplayName, Email, Short
from inferd.api.manage.tokens import TokenIn, TokenOut, add_token, check_scopes, token_out, wish_of
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import NotFound
from inferd.money import usd
from inferd.storage import tokens
from inferd.storage.rows import AccountRow


class AccountIn(msgspec.Struct, frozen=True):
    """An account to be made."""

    display_name: DisplayName
    kind: Literal["personal", "team"] = "team"
    email: Email | None = None
    """Of its first admin, who signs in with it; absent: it is managed with its token."""
    name: Short = ""
    """Of its first admin."""


class AccountOut(msgspec.Struct, frozen=True):
    """An account."""

    uid: str
    display_name: str
    kind: Literal["personal", "team"]
    created_at: str
    suspended: str | None
    credit: float | None
    """Dollars of prepaid credit that were granted; null: no budget."""


class NewAccount(msgspec.Struct, frozen=True):
    """A new account and its first token, which manages it; the secret is shown once."""

    account: AccountOut
    token: TokenOut


class AccountList(msgspec.Struct, frozen=True):
    """All that are not deleted, oldest first."""

    accounts: list[AccountOut]


class SuspensionIn(msgspec.Struct, frozen=True):
    """Why; its people are told."""

    reason: Annotated[str, Meta(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]


_ACCOUNTS = msgspec.json.Decoder(AccountIn)
_TOKENS = msgspec.json.Decoder(TokenIn)
_SUSPENSIONS = msgspec.json.Decoder(SuspensionIn)


async def list_accounts(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/accounts."""
    rows = await services.accounts.every()
    await exchange.respond(200, msgspec.json.encode(AccountList([_out(row) for row in rows])))


async def create_account(exchange: Exchange, services: Services) -> None:
    """POST /v1/admin/accounts."""
    wire = await inference.read(exchange, services, _ACCOUNTS)
    caller, room = exchange.caller, services.accounts
    async with services.changes.writing() as change:
        row = await room.create_in(change, caller, wire.display_name, wire.kind)
        if wire.email is not None:
            await room.enrol(change, row.id, wire.email, "admin", wire.name)
        scopes = tuple(sorted(scopes_of("admin", row.name)))
        wish = TokenWish(DEFAULT_TOKEN, scopes)
        token, secret = await add_token(change, services, caller, row.id, wish)
    body = NewAccount(_out(row), token_out(token, secret))
    await exchange.respond(200, msgspec.json.encode(body))


async def show_account(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/accounts/{uid}."""
    row = await services.accounts.get(exchange.rest)
    await exchange.respond(200, msgspec.json.encode(_out(row)))


async def suspend_account(exchange: Exchange, services: Services) -> None:
    """POST /v1/admin/accounts/{uid}/suspend."""
    wire = await inference.read(exchange, services, _SUSPENSIONS)
    await services.accounts.suspend(exchange.caller, exchange.rest, wire.reason)
    await exchange.respond(200, b"{}")


async def unsuspend_account(exchange: Exchange, services: Services) -> None:
    """POST /v1/admin/accounts/{uid}/unsuspend."""
    await services.accounts.suspend(exchange.caller, exchange.rest, None)
    await exchange.respond(200, b"{}")


async def delete_account(exchange: Exchange, services: Services) -> None:
    """DELETE /v1/admin/accounts/{uid}."""
    await services.accounts.delete(exchange.caller, exchange.rest)
    await exchange.respond(200, b"{}")


async def create_account_token(exchange: Exchange, services: Services) -> None:
    """POST /v1/admin/accounts/{uid}/tokens."""
    wire = await inference.read(exchange, services, _TOKENS)
    row = await services.accounts.get(exchange.rest)
    wish = wish_of(wire, services.clock.unix_ns(), wire.person_id)
    check_scopes(wish, scopes_of("admin", row.name))
    async with services.changes.writing() as change:
        token, secret = await add_token(change, services, exchange.caller, row.id, wish)
    await exchange.respond(200, msgspec.json.encode(token_out(token, secret)))


async def list_account_tokens(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/accounts/{uid}/tokens."""
    row = await services.accounts.get(exchange.rest)
    found = await services.tokens.list(row.id)
    await exchange.respond(200, msgspec.json.encode([token_out(one, None) for one in found]))


async def revoke_any_token(exchange: Exchange, services: Services) -> None:
    """DELETE /v1/admin/tokens/{token_id}."""
    async with services.changes.writing() as change:
        account_id = await tokens.account_of(change.connection, exchange.rest)
        if account_id is None:
            raise NotFound("No such token.")
        await services.tokens.revoke_in(change, account_id, exchange.rest)
        await audit.write(change.connection, exchange.caller, "token.revoke", exchange.rest)
    await exchange.respond(200, b"{}")


def _out(row: AccountRow) -> AccountOut:
    created = datetime.fromtimestamp(row.created_unix_ns / 1e9, UTC)
    return AccountOut(
        uid=row.id,
        display_name=row.name,
        kind=row.kind,
        created_at=created.isoformat(timespec="seconds"),
        suspended=row.suspended,
        credit=None if row.credit_nanos is None else usd(row.credit_nanos),
    )


def account_routes() -> list[Route]:
    """What `table.ROUTES` takes over."""
    at, one = "/v1/admin/accounts", "/v1/admin/accounts/{rest}"
    access, shape = "admin", "native"
    made, end = "A new account and its first token", "Delete an account and its tokens"
    make, stop = "A token of an account", "Let an account spend nothing"
    any_token = "Revoke a token of any account, at once"
    suspend, lift, keys = f"{one}/suspend", f"{one}/unsuspend", f"{one}/tokens"
    return [
        Route("GET", at, list_accounts, access, shape, "All accounts", gives=AccountList),
        Route("POST", at, create_account, access, shape, made, AccountIn, NewAccount),
        Route("GET", one, show_account, access, shape, "One account", gives=AccountOut),
        Route("DELETE", one, delete_account, access, shape, end),
        Route("POST", suspend, suspend_account, access, shape, stop, SuspensionIn),
        Route("POST", lift, unsuspend_account, access, shape, "Let it spend again"),
        Route("GET", keys, list_account_tokens, access, shape, "Tokens of an account, masked"),
        Route("DELETE", "/v1/admin/tokens/{rest}", revoke_any_token, access, shape, any_token),
        Route("POST", keys, create_account_token, access, shape, make, TokenIn, TokenOut),
    ]
