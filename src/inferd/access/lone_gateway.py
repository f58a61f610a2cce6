"""A gateway that counts limits alone must be alone: without Valkey no other may be on its database.

A gateway of another machine lives while its row is touched every second. One that has just
stopped looks alive for a few seconds more, so whoever starts waits until he knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inferd.errors import Unavailable
from inferd.storage import gateways
from inferd.storage.database import Database
from inferd.storage.gateways import Life

LOOK_SECONDS = 0.2


async def require_lone(database: Database, name: str) -> None:
    """Wait until whoever stopped is known to have; raise Unavailable if another gateway lives."""
    first = {one.id: one.seen_unix_ns for one in await _others(database, name)}
    others = list(first)
    while others:
        await asyncio.sleep(LOOK_SECONDS)
        found = await _others(database, name)
        _refuse([one for one in found if one.seen_unix_ns != first.get(one.id)])
        others = [one.id for one in found]


async def require_first(database: Database, name: str, epoch_unix_ns: int) -> None:
    """Of several that start at once, all but the first one are refused. Raises Unavailable."""
    found = await _others(database, name)
    _refuse([one for one in found if one.epoch_unix_ns < epoch_unix_ns])


async def _others(database: Database, name: str) -> Sequence[Life]:
    """Those of other machines: of this one there is a single gateway, whose lock is held."""
    async with database.reading() as connection:
        found = await gateways.alive(connection)
    return [one for one in found if _machine(one.id) != _machine(name)]


def _machine(gateway: str) -> str:
    return gateway.rpartition(".")[0]


def _refuse(living: Sequence[Life]) -> None:
    if living:
        raise Unavailable(
            f"The gateway {living[0].id} works on this database too. Several gateways count "
            "limits together on Valkey: set valkey_url (INFERD_VALKEY_URL), the same for all."
        )
