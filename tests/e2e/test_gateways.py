"""Several gateways on one machine: one set of replicas, and a death costs only its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.books import Books
from tests.e2e.steps import CHAT, body, card, eventually, gone, in_flight
from tests.process import InferdProcess, serving
from tests.servers import PostgresServer, ValkeyServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORKERS = 3


class Cluster:
    """A running server of several gateways, and its books."""

    def __init__(self, server: InferdProcess, books: Books) -> None:
        self.server = server
        self.books = books

    async def gateways(self) -> dict[int, dict[str, int]]:
        """The gateways that are up, by index. Asked over a connection of its own."""
        async with self.server.client() as client:
            status = (await client.get("/v1/status")).json()
        return {gateway["index"]: gateway for gateway in status["gateways"]}

    async def all_up(self) -> dict[int, dict[str, int]]:
        """Wait for all of them."""
        found: dict[int, dict[str, int]] = {}

        async def up() -> bool:
            found.update(await self.gateways())
            return len(found) == WORKERS and len(await self.gateways()) == WORKERS

        await eventually(up)
        return await self.gateways()

    async def replaced(self, gone: dict[str, int]) -> dict[int, dict[str, int]]:
        """Wait until another process is in a gateway's place, and all are up."""

        async def new() -> bool:
            found = (await self.gateways()).get(gone["index"])
            return found is not None and found["pid"] != gone["pid"]

        await eventually(new)
        return await self.all_up()

    async def streams(self, count: int, text: str, model: str = "t/slow") -> list[tuple[str, bool]]:
        """Stream over connections of their own; request id, and whether the end was seen."""
        return await asyncio.gather(*(self._stream(text, model) for _ in range(count)))

    async def _stream(self, text: str, model: str) -> tuple[str, bool]:
        request_id, ended = "", False
        async with self.server.client() as client:
            try:
                payload = body(model, text, stream=True)
                async with client.stream("POST", CHAT, json=payload) as answer:
                    request_id = answer.headers["x-request-id"]
                    assert answer.status_code == 200
                    async for line in answer.aiter_lines():
                        ended = ended or line == "data: [DONE]"
            except httpx.TransportError:
                pass
        return request_id, ended


def settings_of(postgres: PostgresServer, valkey: ValkeyServer, url: str) -> dict[str, Any]:
    return {"database_url": url, "valkey_url": valkey.url, "workers": WORKERS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, valkey: ValkeyServer
) -> AsyncIterator[Cluster]:
    """One server for the tests that leave it whole."""
    url = await postgres.migrated()
    folder = tmp_path_factory.mktemp("cluster")
    cards = (card("t/echo"), card("t/slow", "token_ms=10", slots=16))
    async with serving(folder, *cards, **settings_of(postgres, valkey, url)) as server:
        yield Cluster(server, Books(url, folder, postgres))


async def test_all_gateways_answer_and_the_model_is_loaded_once(cluster: Cluster) -> None:
    assert all(ended for _, ended in await cluster.streams(30, "one two", "t/echo"))
    async with cluster.server.client() as client:
        status = (await client.get("/v1/status")).json()
        metrics = (await client.get("/metrics")).text
    echo = next(model for model in status["models"] if model["model"] == "t/echo")
    assert (echo["state"], echo["in_flight"], status["loads"]) == ("ready", 0, 1)
    counted = [
        line
        for line in metrics.splitlines()
        if line.startswith("inferd_requests_total{") and 'model="t/echo"' in line
    ]
    assert len({line.split('gateway="')[1][0] for line in counted}) > 1
    assert sum(float(line.split()[-1]) for line in counted) == 30
    assert metrics.count('inferd_slots{model="t/echo"}') == 1
    assert metrics.count("# TYPE inferd_requests_total counter") == 1


async def test_a_killed_gateway_costs_only_its_own_requests(cluster: Cluster) -> None:
    before = await cluster.all_up()
    running = asyncio.ensure_future(cluster.streams(12, "w " * 150))
    async with cluster.server.client() as client:
        await in_flight(client, "t/slow", 12)
    busy = max((await cluster.gateways()).values(), key=lambda gateway: gateway["in_flight"])
    os.kill(busy["pid"], signal.SIGKILL)
    told = await running
    lost = [request_id for request_id, ended in told if not ended]
    assert len(lost) == busy["in_flight"]
    after = await cluster.replaced(busy)
    assert all(after[i]["pid"] == before[i]["pid"] for i in after if i != busy["index"])
    async with cluster.server.client() as client:
        await in_flight(client, "t/slow", 0)
    assert all(ended for _, ended in await cluster.streams(12, "w", "t/slow"))
    ids = [row.request_id for row in await cluster.books.rows()]
    assert len(ids) == len(set(ids))
    assert {request_id for request_id, ended in told if ended} <= set(ids)
    assert await cluster.books.ask("SELECT request_id FROM reservations") == []
    code, said = await cluster.server.cli("usage", "verify")
    assert (code, "all right" in said) == (0, True)


async def test_a_killed_worker_is_replaced_for_all_gateways(cluster: Cluster) -> None:
    await cluster.streams(12, "w", "t/echo")
    os.kill(await cluster.server.worker_pid("t/echo"), signal.SIGKILL)
    assert all(ended for _, ended in await cluster.streams(12, "w", "t/echo"))


async def test_a_gateway_that_is_told_to_end_finishes_what_it_runs(cluster: Cluster) -> None:
    await cluster.all_up()
    running = asyncio.ensure_future(cluster.streams(12, "w " * 60))
    async with cluster.server.client() as client:
        await in_flight(client, "t/slow", 12)
    busy = max((await cluster.gateways()).values(), key=lambda gateway: gateway["in_flight"])
    os.kill(busy["pid"], signal.SIGTERM)
    assert all(ended for _, ended in await running)
    await cluster.replaced(busy)


async def test_a_client_that_leaves_stops_the_engine(cluster: Cluster) -> None:
    async with cluster.server.client() as client:
        payload = body("t/slow", "w " * 400, stream=True, user="leaver")
        async with client.stream("POST", CHAT, json=payload) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            await in_flight(client, "t/slow", 1)
        await in_flight(client, "t/slow", 0)

    async def booked() -> bool:
        rows = [row for row in await cluster.books.rows() if row.end_user == "leaver"]
        return [(row.status, row.output_tokens < 400) for row in rows] == [("cancelled", True)]

    await eventually(booked)


async def test_sigterm_drains_and_leaves_no_process(
    tmp_path: Path, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    url = await postgres.migrated()
    slow = card("t/slow", "token_ms=10", slots=16)
    settings = settings_of(postgres, valkey, url)
    async with serving(tmp_path, slow, **settings) as server:
        cluster = Cluster(server, Books(url, tmp_path, postgres))
        gateways = await cluster.all_up()
        running = asyncio.ensure_future(cluster.streams(8, "w " * 80))
        async with server.client() as client:
            await in_flight(client, "t/slow", 8)
        pids = [gateway["pid"] for gateway in gateways.values()]
        pids.append(await server.worker_pid("t/slow"))
        os.kill(server.pid, signal.SIGTERM)
        assert all(ended for _, ended in await running)
        assert await server.wait() == 0
        for pid in pids:
            await gone(pid)
        assert len(await cluster.books.rows()) == 8
        # The next start finds all names, journals and leases as they were left.
        await server.start()
        assert (await cluster.all_up()).keys() == gateways.keys()
        (count,) = (await cluster.books.ask("SELECT COUNT(*) FROM gateways"))[0]
        assert count == WORKERS
        pids = [gateway["pid"] for gateway in (await cluster.gateways()).values()]
        await server.kill()
        for pid in pids:
            await gone(pid)
