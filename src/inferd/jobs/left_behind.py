"""Work that a dead process left: who asked for it, whether he may still be billed, what became."""

from __future__ import annotations

from typing import Protocol

from inferd.access.caller import INFERENCE_RUN, Caller
from inferd.clock import Clock
from inferd.errors import Forbidden, PaymentRequired
from inferd.storage import payers
from inferd.storage.database import Database

FAILED_BEFORE = "It failed before the server was started again."
"""Of work whose failure is in the ledger: under its id nothing more can be booked."""


class Asked(Protocol):
    """What a row keeps of whoever asked."""

    @property
    def account_id(self) -> str: ...
    @property
    def token_id(self) -> str: ...
    @property
    def jwt_id(self) -> str | None: ...
    @property
    def jwt_limit_nanos(self) -> int | None: ...


def caller_of(row: Asked) -> Caller:
    """Whoever asked, for inference alone."""
    scopes = frozenset({INFERENCE_RUN})
    return Caller(
        row.account_id,
        row.token_id,
        "",
        scopes,
        jwt_id=row.jwt_id,
        jwt_limit_nanos=row.jwt_limit_nanos,
    )


async def require_payer(database: Database, row: Asked, clock: Clock) -> None:
    """Raise PaymentRequired or Forbidden if nobody may be billed for it any more."""
    async with database.reading() as connection:
        refused = await payers.refusals(connection, [row.account_id])
        live = await payers.is_live(connection, row.token_id, clock.unix_ns())
    if refused:
        raise PaymentRequired(refused[row.account_id])
    if not live:
        raise Forbidden("The token that asked for it was revoked or has expired.")
