"""Budgets in DeepInfra's shapes (deepinfra-api 12): limits of the account and of its tokens.

Amounts here are dollars as floats, -1 for no limit. There is no card processor: credit is granted
by an admin, and routes that would lead to one say so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferd.access import audit
from inferd.access.caller import ACCOUNT_ADMIN, ADMIN
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.manage.query import Query, view_of
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import BadRequest, Forbidden, NotFound
from inferd.metering.credit import Budget, budget
from inferd.metering.ledger import Also
from inferd.money import NANOS_MAX, NANOS_PER_USD, usd
from inferd.storage import accounts, purses, tokens
from inferd.storage.ledger_statements import month_of
from inferd.storage.rows import AccountRow, TokenRow

NO_LIMIT = -1.0
Dollars = Annotated[float, Meta(le=NANOS_MAX / NANOS_PER_USD)]
SuspendReason = Literal["admin", "balance", "limit-reached"]


class PaymentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the account may spend in a month of UTC. Dollars; negative: no limit."""

    limit: float
    """What the account allows itself."""
    admin_limit: float
    """What the installation's admin allows it."""
    effective_limit: float
    """The lower of both."""
    effective_limit_set_by: Literal["account", "admin"] | None
    """null: there is no limit."""


class PaymentConfigIn(msgspec.Struct, frozen=True):
    """A new monthly limit."""

    limit: Dollars | None = None
    """Dollars; negative: no limit; null: as it is; 0 blocks."""


class KeyLimit(msgspec.Struct, frozen=True):
    """What a token may spend in a month of UTC, and has spent in this one."""

    token_id: str
    name: str
    limit: float
    """Dollars; negative: no limit."""
    spend: float


class KeyLimitIn(msgspec.Struct, frozen=True):
    """A new monthly limit of a token."""

    token_id: Annotated[str, Meta(max_length=64)]
    limit: Dollars | None = None
    """Dollars; negative or null: no limit; 0 blocks."""


class Checklist(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the account can spend, and what is in the way."""

    email: bool = True
    billing_address: bool = True
    billing_address_info: None = None
    payment_method: bool = True
    """Nothing is missing: an admin grants credit, there are no cards."""
    payment_method_info: None = None
    suspended: bool
    overdue_invoices: float = 0.0
    last_checked: int
    """Unix seconds."""
    stripe_balance: float
    """Dollars; negative: credit that is left."""
    recent: float
    """Dollars spent in this month."""
    limit: float | None
    """Dollars a month."""
    suspend_reason: SuspendReason | None
    topup: bool = False
    topup_amount: float = 0.0
    topup_threshold: float = 0.0
    topup_failed: bool = False
    billing_type: Literal["prepaid", "postpaid"]
    scoped_credits: list[dict[str, Any]] = []


_CONFIG = msgspec.json.Decoder(PaymentConfigIn)
_KEY_LIMIT = msgspec.json.Decoder(KeyLimitIn)
_NO_CARDS = (
    "There is no card processor here. Credit is granted by an admin: "
    "POST /v1/admin/accounts/{id}/credit, or `inferd account credit`."
)


def payment_routes() -> list[Route]:
    """The routes of this file."""
    refused = [
        ("POST", "funds"),
        ("POST", "topup"),
        ("GET", "billing-portal"),
        ("POST", "payment-methods/setup"),
        ("POST", "deepstart/application"),
    ]
    summary = "Always 404: credit is granted by an admin"
    return [
        Route("GET", "/payment/config", config, "account-admin", "native",
              "The account's monthly limit", None, PaymentConfig),
        Route("POST", "/payment/config", set_config, "account-admin", "native",
              "Set the account's monthly limit", PaymentConfigIn, PaymentConfig),
        Route("GET", "/payment/key-limits", key_limits, "token", "native",
              "Monthly limits of the account's tokens"),
        Route("POST", "/payment/key-limits", set_key_limit, "account-admin", "native",
              "Set a token's monthly limit", KeyLimitIn),
        Route("GET", "/payment/checklist", checklist, "token", "native",
              "Whether the account can spend", None, Checklist),
        *(
            Route(method, f"/payment/{name}", no_cards, "token", "native", summary)
            for method, name in refused
        ),
    ]  # fmt: skip


async def config(exchange: Exchange, services: Services) -> None:
    """GET /payment/config; with `account=` of any account, for the installation's admin."""
    account_id = await _managed(exchange, services)
    found = await _budget(services, account_id)
    effective = found.month_limit_nanos
    own = found.own_month_limit_nanos == effective
    body = PaymentConfig(
        limit=_dollars(found.own_month_limit_nanos),
        admin_limit=_dollars(found.admin_month_limit_nanos),
        effective_limit=_dollars(effective),
        effective_limit_set_by=None if effective is None else "account" if own else "admin",
    )
    await exchange.respond(200, msgspec.json.encode(body))


async def set_config(exchange: Exchange, services: Services) -> None:
    """POST /payment/config: the account's own limit; with `account=` the admin's limit of it."""
    account_id = await _managed(exchange, services)
    wire = await inference.read(exchange, services, _CONFIG)
    if wire.limit is not None:
        by_admin = account_id != exchange.caller.account_id
        action = "account.admin_monthly_limit" if by_admin else "account.monthly_limit"
        also = _audited(exchange, action, account_id, wire.limit)
        nanos = _nanos(wire.limit)
        await services.ledger.set_monthly_limit(account_id, nanos, also, by_admin=by_admin)
    await config(exchange, services)


async def _managed(exchange: Exchange, services: Services) -> str:
    """The account that is meant: one's own. Raises Forbidden, NotFound."""
    asked, caller = Query(exchange.query).text("account"), exchange.caller
    if asked is None or asked == caller.account_id:
        return caller.account_id
    if not caller.may(ADMIN):
        raise Forbidden("Another account's limit is for the installation's admin.")
    return (await services.accounts.get(asked)).id


async def key_limits(exchange: Exchange, services: Services) -> None:
    """GET /payment/key-limits: of all tokens, a member's own ones, or of the token that asks."""
    view = view_of(exchange.caller, Query(exchange.query))
    if view.account_id is None:
        raise BadRequest("Tokens are listed for one account.", param="account")
    month = month_of(services.clock.unix_ns())
    async with services.database.reading() as connection:
        rows = await tokens.of_account(connection, view.account_id, view.person_id)
        if view.token_id is not None:
            rows = [row for row in rows if row.id == view.token_id]
        keys = {row.id: f"token:{row.id}:{month}" for row in rows}
        spent = await purses.spent(connection, list(keys.values()))
    body = [_key_limit(row, spent.get(keys[row.id], 0)) for row in rows]
    await exchange.respond(200, msgspec.json.encode(body))


async def set_key_limit(exchange: Exchange, services: Services) -> None:
    """POST /payment/key-limits."""
    wire = await inference.read(exchange, services, _KEY_LIMIT)
    caller = exchange.caller
    if wire.token_id == caller.token_id and not caller.may(ADMIN):
        raise Forbidden("A token does not change its own limit.")
    nanos = None if wire.limit is None else _nanos(wire.limit)
    account_id = caller.account_id
    also = _audited(exchange, "token.monthly_limit", wire.token_id, wire.limit)
    await services.ledger.set_token_monthly_limit(account_id, wire.token_id, nanos, also)
    await key_limits(exchange, services)


async def checklist(exchange: Exchange, services: Services) -> None:
    """GET /payment/checklist."""
    body = await checklist_of(exchange, services)
    await exchange.respond(200, msgspec.json.encode(body))


async def checklist_of(exchange: Exchange, services: Services) -> Checklist:
    """What keeps the caller's account from spending. Raises NotFound."""
    account_id = exchange.caller.account_id
    found = await _budget(services, account_id)
    async with services.database.reading() as connection:
        row = await accounts.by_id(connection, account_id)
    if row is None:
        raise NotFound("The account does not exist any more.")
    manages = exchange.caller.may(ACCOUNT_ADMIN)
    limit = found.month_limit_nanos
    return Checklist(
        suspended=_reason(row, found) is not None,
        last_checked=services.clock.unix_ns() // 1_000_000_000,
        # What the account has is for those who manage it.
        stripe_balance=usd(-(found.balance_nanos or 0)) if manages else 0.0,
        recent=usd(found.month_spent_nanos) if manages else 0.0,
        limit=usd(limit) if manages and limit is not None else None,
        suspend_reason=_reason(row, found),
        billing_type="postpaid" if found.credit_nanos is None else "prepaid",
    )


async def no_cards(exchange: Exchange, services: Services) -> None:
    """Whatever would lead to a card processor."""
    raise NotFound(_NO_CARDS)


async def _budget(services: Services, account_id: str) -> Budget:
    return await budget(services.database, account_id, services.clock.unix_ns())


def _audited(exchange: Exchange, action: str, target: str, limit: float | None) -> Also:
    """What writes the audit row of a limit."""

    async def write(connection: audit.Connection) -> None:
        await audit.write(connection, exchange.caller, action, target, {"usd": limit})

    return write


def _reason(row: AccountRow, found: Budget) -> SuspendReason | None:
    if row.suspended is not None:
        return "admin"
    if found.balance_nanos is not None and found.balance_nanos <= 0:
        return "balance"
    limit = found.month_limit_nanos
    return "limit-reached" if limit is not None and found.month_spent_nanos >= limit else None


def _key_limit(row: TokenRow, spent_nanos: int) -> KeyLimit:
    return KeyLimit(row.id, row.name, _dollars(row.monthly_limit_nanos), usd(spent_nanos))


def _dollars(nanos: int | None) -> float:
    return NO_LIMIT if nanos is None else usd(nanos)


def _nanos(dollars: float) -> int | None:
    return None if dollars < 0 else round(dollars * NANOS_PER_USD)
