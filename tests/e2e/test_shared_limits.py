"""Four gateway processes, one limit: exact together, safe without Valkey, never a 500."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.accounts import another_account
from tests.e2e.steps import CHAT, body, card, eventually
from tests.process import InferdProcess, serving
from tests.servers import PostgresServer, ValkeyServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

GATEWAYS = 4
EFFECTIVE_SECONDS = 1.0
"""How soon a limit holds on every gateway."""


class Installation:
    """A running server of several gateways, and the servers that it stands on."""

    def __init__(self, server: InferdProcess, folder: Path, url: str, valkey: ValkeyServer) -> None:
        self.server = server
        self.valkey = valkey
        self._folder = folder
        self._url = url

    async def account(self, name: str, **bounds: int) -> tuple[str, str]:
        """An account with limits on everything together: its id, and a token's secret."""
        account_id, secret = await another_account(self._folder, name, self._url)
        async with self.server.client() as admin:
            limit = {"account_id": account_id, **bounds}
            answer = await admin.put("/v1/admin/limits", json=limit)
            assert answer.status_code == 200, answer.text
        await asyncio.sleep(EFFECTIVE_SECONDS)
        return account_id, secret

    @asynccontextmanager
    async def client(self, secret: str) -> AsyncGenerator[httpx.AsyncClient]:
        """A connection for each call, so that all gateways are met."""
        limits = httpx.Limits(max_keepalive_connections=0, max_connections=40)
        async with self.server.client(limits=limits) as client:
            client.headers["authorization"] = f"Bearer {secret}"
            yield client

    async def hammer(self, secret: str, count: int) -> Counter[int]:
        """So many calls at once; how often each status came."""
        async with self.client(secret) as client:
            payload = body("t/echo", "w", max_tokens=1)
            answers = await asyncio.gather(*(client.post(CHAT, json=payload) for _ in range(count)))
        for answer in answers:
            if answer.status_code == 429:
                assert 1 <= int(answer.headers["retry-after"]) <= 61
                assert "Rate limited" in answer.json()["error"]["message"]
        return Counter(answer.status_code for answer in answers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installation(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> AsyncIterator[Installation]:
    url = await postgres.migrated()
    folder = tmp_path_factory.mktemp("limits")
    valkey = ValkeyServer()
    valkey.start()
    cards = (card("t/echo"), card("t/slow", "token_ms=20", slots=32))
    settings: dict[str, Any] = {
        "database_url": url,
        "valkey_url": valkey.url,
        "workers": GATEWAYS,
    }
    try:
        async with serving(folder, *cards, **settings) as server:
            installed = Installation(server, folder, url, valkey)
            await eventually(lambda: all_up(server))
            yield installed
    finally:
        valkey.close()


async def all_up(server: InferdProcess) -> bool:
    async with server.client() as client:
        return len((await client.get("/v1/status")).json()["gateways"]) == GATEWAYS


async def test_sixty_a_minute_are_sixty_over_all_gateways(installation: Installation) -> None:
    _, secret = await installation.account("sixty", requests_per_minute=60)
    assert await installation.hammer(secret, 240) == {200: 60, 429: 180}


async def test_what_a_killed_gateway_had_in_flight_is_given_back(
    installation: Installation,
) -> None:
    _, secret = await installation.account("a gateway dies", concurrent_requests=12)
    async with installation.client(secret) as client:
        payload = body("t/slow", "w " * 900, stream=True)

        async def one() -> int:
            try:
                async with client.stream("POST", CHAT, json=payload) as answer:
                    async for _ in answer.aiter_lines():
                        pass
                    return answer.status_code
            except httpx.TransportError:
                return 0

        running = [asyncio.ensure_future(one()) for _ in range(12)]
        await eventually(lambda: holds(installation, "t/slow", 12))
        assert await installation.hammer(secret, 8) == {429: 8}
        async with installation.server.client() as admin:
            gateways = (await admin.get("/v1/status")).json()["gateways"]
        busy = max(gateways, key=lambda gateway: gateway["in_flight"])
        os.kill(busy["pid"], signal.SIGKILL)

        async def room() -> bool:
            return (await installation.hammer(secret, 1))[200] == 1

        await eventually(room)
        for call in running:
            call.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    await eventually(lambda: all_up(installation.server))
    await eventually(lambda: lets_in(installation, secret, 12))


async def holds(installation: Installation, model: str, count: int) -> bool:
    async with installation.server.client() as admin:
        models = (await admin.get("/v1/status")).json()["models"]
    return any(m["model"] == model and m["in_flight"] == count for m in models)


async def lets_in(installation: Installation, secret: str, count: int) -> bool:
    """Nothing is in flight any more: so many fit at once again."""
    answers = await installation.hammer(secret, count)
    assert set(answers) <= {200, 429}
    return answers[200] == count


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_while_valkey_is_away_nobody_gets_more_and_nothing_breaks(
    installation: Installation, how: str
) -> None:
    _, secret = await installation.account(f"valkey is {how}", requests_per_minute=80)
    _, free = await installation.account(f"free while {how}", concurrent_requests=500)
    valkey = installation.valkey
    seen = await installation.hammer(secret, 30)
    assert seen == {200: 30}
    if how == "killed":
        valkey.kill()
    else:
        os.kill(valkey.pid, signal.SIGSTOP)
    for _ in range(4):
        seen += await installation.hammer(secret, 40)
        assert await installation.hammer(free, 10) == {200: 10}
    assert set(seen) <= {200, 429}
    assert 30 <= seen[200] <= 80
    if how == "killed":
        valkey.start()
    else:
        os.kill(valkey.pid, signal.SIGCONT)

    async def all_of_it() -> bool:
        nonlocal seen
        seen += await installation.hammer(secret, 20)
        assert set(seen) <= {200, 429}
        return seen[200] >= 80

    async with asyncio.timeout(30):
        while not await all_of_it():
            await asyncio.sleep(0.2)
    assert seen[200] == 80
    assert await installation.hammer(free, 10) == {200: 10}


async def test_limits_and_revocations_hold_everywhere_within_a_second_without_valkey(
    installation: Installation,
) -> None:
    account_id, secret = await installation.account("changes", concurrent_requests=100)
    assert await installation.hammer(secret, 40) == {200: 40}
    async with installation.server.client() as admin:
        token = (await admin.post("/v1/api-tokens", json={"name": "short-lived"})).json()
        assert await installation.hammer(token["token"], 40) == {200: 40}
        os.kill(installation.valkey.pid, signal.SIGSTOP)
        try:
            limit = {"account_id": account_id, "requests_per_minute": 1}
            assert (await admin.put("/v1/admin/limits", json=limit)).status_code == 200
            path = f"/v1/api-tokens/id/{token['token_id']}"
            assert (await admin.delete(path)).status_code == 200
            await asyncio.sleep(EFFECTIVE_SECONDS)
            assert (await installation.hammer(secret, 20))[200] <= 1
            assert await installation.hammer(token["token"], 20) == {401: 20}
        finally:
            os.kill(installation.valkey.pid, signal.SIGCONT)
