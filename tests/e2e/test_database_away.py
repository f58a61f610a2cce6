"""The database is away for a moment: the short form of tests/chaos/test_database_stops.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.outage import outage
from tests.servers import PostgresServer, ValkeyServer


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_known_callers_are_served_and_billed_while_the_database_is_away(
    data_dir: Path, valkey: ValkeyServer, how: str
) -> None:
    async with outage(data_dir, valkey, workers=1, drive=PostgresServer) as away:
        async with away.load():
            await away.answered(20)
            away.database.stop() if how == "stopped" else away.database.freeze()
            # What was under way when it stopped may still be waiting for it.
            await asyncio.sleep(5)
            away.forget()
            await asyncio.sleep(3)
            served, refused, budgeted = away.known(), away.unknown, away.budgeted
            away.database.start() if how == "stopped" else away.database.thaw()
            away.forget()
            await away.answered(50)
        assert set(served) == {200}
        assert served[200] > 20
        assert set(refused) == {503}
        assert set(budgeted) <= {200, 402, 503}
        assert set(away.known()) == {200}
        await away.check_books()
