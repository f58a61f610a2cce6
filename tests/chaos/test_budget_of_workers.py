"""One dollar before `serve --workers 4`, with and without one of the four killed in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from inferd.catalog.card_price import CardPrice
from tests.books import Books
from tests.e2e.steps import CHAT, body, card, eventually
from tests.process import InferdProcess, serving
from tests.servers import PostgresServer, ValkeyServer

pytestmark = pytest.mark.chaos

DOLLAR = 10**9
HELD_MS = 8_000
"""The model loads for so long: whoever was admitted is held until all are decided."""
BOOKED = (
    "SELECT COUNT(*), COALESCE(SUM(cost_nanos), 0) FROM entries "
    "WHERE token_id = (SELECT id FROM tokens WHERE name = 'dollar')"
)


async def ask(server: InferdProcess, secret: str, told: list[int]) -> None:
    """One request over a connection of its own; 0 if its gateway died."""
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
        try:
            answer = await client.post(CHAT, json=body("t/dear", max_tokens=1))
        except httpx.TransportError:
            told.append(0)
        else:
            told.append(answer.status_code)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_dollar_admits_twenty_of_two_hundred(
    data_dir: Path, postgres: PostgresServer, valkey: ValkeyServer, *, killed: bool
) -> None:
    url = await postgres.migrated()
    books = Books(url, data_dir, postgres)
    price = CardPrice(input="0", cached="0", output="50000")
    dear = card("t/dear", f"load_ms={HELD_MS}", slots=50, price=price)
    settings = {"database_url": url, "valkey_url": valkey.url, "workers": 4}
    async with serving(data_dir, dear, **settings) as server, server.client() as admin:
        made = await admin.post("/v1/api-tokens", json={"name": "dollar", "monthly_limit": 1})
        secret = made.json()["token"]
        told: list[int] = []
        asking = [asyncio.ensure_future(ask(server, secret, told)) for _ in range(200)]
        async with asyncio.timeout(HELD_MS / 1000 + 30):
            while told.count(402) < 180:
                await asyncio.sleep(0.02)
        assert len(told) == 180, "all are decided while those who were admitted are held"
        if killed:
            async with server.client() as client:
                gateways = (await client.get("/v1/status")).json()["gateways"]
            os.kill(max(gateways, key=lambda one: one["in_flight"])["pid"], signal.SIGKILL)
        await asyncio.gather(*asking)
        first = Counter(told)
        if killed:
            await _all_up(server)
            # What the dead one held is free again; the budget is exactly used up.
            await asyncio.gather(*(ask(server, secret, told) for _ in range(100)))
        total = Counter(told)
        print(first, total)
        assert await books.ask(BOOKED) == [(20, DOLLAR)]
        assert total[200] == 20 if not killed else 20 - first[0] <= total[200] <= 20
        assert set(total) <= {0, 200, 402}
        assert (await admin_verify(server))["differences"] == []


async def _all_up(server: InferdProcess) -> None:
    async def up() -> bool:
        async with server.client() as client:
            return len((await client.get("/v1/status")).json()["gateways"]) == 4

    await eventually(up)


async def admin_verify(server: InferdProcess) -> dict[str, list[str]]:
    """`inferd usage verify`."""
    async with server.client() as client:
        return (await client.post("/v1/usage/verify", timeout=60)).json()
