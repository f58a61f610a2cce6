"""Who did what: the installation's audit rows, newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import BadRequest
from inferd.storage import audit
from inferd.storage.audit import AuditRow

PAGE_DEFAULT = 100
PAGE_MAX = 1000
FILTER_CHARACTERS_MAX = 100


class AuditOut(msgspec.Struct, frozen=True, kw_only=True):
    """One action."""

    id: str
    at: str
    account_id: str
    token_id: str
    token_name: str
    person_id: str | None
    address: str
    request_id: str
    action: str
    target: str
    # What changed differs from action to action.
    detail: dict[str, Any]


class AuditPage(msgspec.Struct, frozen=True):
    """A page; `next` is what `before` is for the page after, null at the end."""

    rows: list[AuditOut]
    next: str | None


async def list_audit(exchange: Exchange, services: Services) -> None:
    """GET /v1/admin/audit?before=&limit=&account_id=&action=."""
    query = parse_qs(exchange.query.decode("latin-1"))
    count_max = _limit(query)
    async with services.database.reading() as connection:
        rows = await audit.page(
            connection,
            before=_text(query, "before"),
            count_max=count_max,
            account_id=_text(query, "account_id"),
            action=_text(query, "action"),
        )
    page = AuditPage([_out(row) for row in rows], rows[-1].id if len(rows) == count_max else None)
    await exchange.respond(200, msgspec.json.encode(page))


def _out(row: AuditRow) -> AuditOut:
    at = datetime.fromtimestamp(row.at_unix_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    return AuditOut(
        id=row.id,
        at=at,
        account_id=row.account_id,
        token_id=row.token_id,
        token_name=row.token_name,
        person_id=row.person_id,
        address=row.address,
        request_id=row.request_id,
        action=row.action,
        target=row.target,
        detail=msgspec.json.decode(row.detail),
    )


def _limit(query: dict[str, list[str]]) -> int:
    given = query.get("limit", [str(PAGE_DEFAULT)])[0]
    sound = given.isascii() and given.isdecimal() and len(given) <= 4
    if not sound or not 1 <= int(given) <= PAGE_MAX:
        raise BadRequest(f"limit must be a whole number from 1 to {PAGE_MAX}.", param="limit")
    return int(given)


def _text(query: dict[str, list[str]], name: str) -> str | None:
    given = query.get(name)
    if given is None:
        return None
    if len(given[0]) > FILTER_CHARACTERS_MAX or "\x00" in given[0]:
        raise BadRequest(f"{name} is at most {FILTER_CHARACTERS_MAX} characters.", param=name)
    return given[0]


def audit_routes() -> list[Route]:
    """What an installation's admin may read."""
    summary = "Who did what, newest first"
    path = "/v1/admin/audit"
    return [Route("GET", path, list_audit, "admin", "native", summary, gives=AuditPage)]
