"""Credit: what the installation's admin grants an account, and takes back."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferd import ids
from inferd.access import audit
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import BadRequest, NotFound
from inferd.metering.credit import budget, grant
from inferd.metering.periods import moment_text
from inferd.money import decimal_text, nanos_from_usd
from inferd.storage import accounts, purses
from inferd.storage.rows import GrantRow


class CreditIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credit to give."""

    usd: Annotated[str, Meta(max_length=40)]
    """A decimal, such as "25.00"; negative: taken back."""
    note: Annotated[str, Meta(max_length=500)] = ""
    id: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Your own name for this grant: the same one again grants nothing twice."""


class GrantOut(msgspec.Struct, frozen=True):
    """One grant."""

    id: str
    usd: str
    nanos: int
    note: str
    granted_by: str
    at: str


class CreditOut(msgspec.Struct, frozen=True, kw_only=True):
    """An account's prepaid budget, exactly."""

    account_id: str
    credit_usd: str | None
    """Granted in all; null: the account is not prepaid."""
    spent_usd: str
    balance_usd: str | None
    balance_nanos: int | None
    grants: list[GrantOut]


_DECODER = msgspec.json.Decoder(CreditIn)


def credit_routes() -> list[Route]:
    """The routes of this file."""
    path = "/v1/admin/accounts/{rest}/credit"
    return [
        Route("GET", path, show_credit, "admin", "native", "Credit of an account", None, CreditOut),
        Route("POST", path, give_credit, "admin", "native", "Grant credit, or take it back",
              CreditIn, CreditOut),
    ]  # fmt: skip


async def show_credit(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/accounts/{id}/credit."""
    await _answer(exchange, services)


async def give_credit(exchange: Exchange, services: Services) -> None:
    """POST /v1/admin/accounts/{id}/credit."""
    wire = await inference.read(exchange, services, _DECODER)
    try:
        nanos = nanos_from_usd(wire.usd)
    except ValueError as error:
        raise BadRequest(f"{error}", param="usd") from None
    if not nanos:
        raise BadRequest("A grant of nothing.", param="usd")
    row = GrantRow(
        id=wire.id or ids.sortable("grant"),
        account_id=exchange.rest,
        nanos=nanos,
        note=wire.note,
        granted_by=exchange.caller.token_id,
        created_unix_ns=services.clock.unix_ns(),
    )
    detail = {"usd": decimal_text(nanos, 9), "grant": row.id, "note": row.note}
    async with services.ledger.changing(row.account_id) as connection:
        if await grant(connection, row):
            caller = exchange.caller
            await audit.write(connection, caller, "account.credit", row.account_id, detail)
    await _answer(exchange, services)


async def _answer(exchange: Exchange, services: Services) -> None:
    account_id = exchange.rest
    found = await budget(services.database, account_id, services.clock.unix_ns())
    async with services.database.reading() as connection:
        if await accounts.by_id(connection, account_id) is None:
            raise NotFound("No such account.")
        made = await purses.granted(connection, account_id)
    body = CreditOut(
        account_id=account_id,
        credit_usd=_usd(found.credit_nanos),
        spent_usd=decimal_text(found.spent_nanos, 9),
        balance_usd=_usd(found.balance_nanos),
        balance_nanos=found.balance_nanos,
        grants=[_grant(row) for row in made],
    )
    await exchange.respond(200, msgspec.json.encode(body))


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else decimal_text(nanos, 9)


def _grant(row: GrantRow) -> GrantOut:
    at = moment_text(row.created_unix_ns)
    usd = decimal_text(row.nanos, 9)
    return GrantOut(row.id, usd, row.nanos, row.note, row.granted_by, at)
