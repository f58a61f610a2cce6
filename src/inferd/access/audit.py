"""Who did what: a row for each action of somebody who manages.

The row is written in the transaction of the change itself: there is none without the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import NamedTuple

import msgspec

from inferd import ids
from inferd.access.caller import Caller
from inferd.clock import SystemClock
from inferd.storage import audit
from inferd.storage.audit import AuditRow, Connection

_CLOCK = SystemClock()


class Origin(NamedTuple):
    """The request that is being answered."""

    request_id: str
    address: str


origin: ContextVar[Origin] = ContextVar("origin")
"""Set by the application at the start of each request."""
_NOWHERE = Origin("", "")


async def write(
    connection: Connection,
    caller: Caller,
    action: str,
    target: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Add a row. `detail` says what changed, never a secret."""
    whence = origin.get(_NOWHERE)
    row = AuditRow(
        id=ids.sortable("aud"),
        at_unix_ns=_CLOCK.unix_ns(),
        account_id=caller.account_id,
        token_id=caller.token_id,
        token_name=caller.token_name,
        person_id=getattr(caller, "person_id", None),
        address=whence.address,
        request_id=whence.request_id,
        action=action,
        target=target,
        detail=msgspec.json.encode(detail or {}).decode(),
    )
    await audit.add(connection, row)
