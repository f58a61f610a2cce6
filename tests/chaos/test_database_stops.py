"""The database stops for half a minute under load, three gateways before it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.outage import outage
from tests.servers import PostgresServer, ValkeyServer

pytestmark = pytest.mark.chaos

AWAY_SECONDS = 30


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_nothing_is_unbilled_and_known_callers_notice_nothing(
    data_dir: Path, valkey: ValkeyServer, how: str
) -> None:
    async with outage(data_dir, valkey, workers=3, drive=PostgresServer) as away:
        async with away.load():
            await away.answered(100)
            away.database.stop() if how == "stopped" else away.database.freeze()
            # What was under way when it stopped may still be waiting for it.
            await asyncio.sleep(5)
            away.forget()
            await asyncio.sleep(AWAY_SECONDS - 5)
            served, refused, budgeted = away.known(), away.unknown, away.budgeted
            away.database.start() if how == "stopped" else away.database.thaw()
            away.forget()
            await away.answered(300)
        print(f"{how}: {served} known, {budgeted} with a dollar, {refused} unknown")
        assert set(served) == {200}
        assert served[200] > 1000
        assert set(refused) == {503}
        assert set(budgeted) <= {200, 402, 503}
        assert set(away.known()) == {200}
        await away.check_books()
