"""Workers that are killed again and again: their requests are told, nobody else notices."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.chaos.dice import dice
from tests.e2e.steps import CHAT, body, card, eventually
from tests.e2e.witness import Witness
from tests.process import InferdProcess, serving

pytestmark = pytest.mark.chaos

ROUNDS = 4
KILLS = 3
"""In a row: a worker that dies more often is taken for one in a crash loop, and restarts later."""
STABLE_SECONDS = 10.5
"""A worker that lives so long is not in a crash loop."""
BACK_SECONDS_MAX = 2.5
"""About a second on an idle machine; this one computes for 16 clients meanwhile."""


async def test_a_killed_worker_costs_its_own_requests_and_nobody_elses(data_dir: Path) -> None:
    chance = dice()
    cards = [card(name, "token_ms=2") for name in ("t/victim", "t/neighbour")]
    async with serving(data_dir, *cards, idle_seconds=-1) as server, server.client() as client:
        for one in cards:
            await client.post(CHAT, json=body(one.name))
        neighbour = await server.worker_pid("t/neighbour")
        over = asyncio.Event()
        told = {one.name: Witness() for one in cards}
        async with asyncio.TaskGroup() as group:
            for number in range(16):
                model = cards[number % 2].name
                seed = chance.random()
                group.create_task(_asks(server, model, told[model], (seed, over)))
            slowest = await _kill_often(server, client, chance)
            over.set()
        status = (await client.get("/v1/status")).json()
        assert not any(m["in_flight"] or m["queued"] for m in status["models"])
        assert status["deaths"] == ROUNDS * KILLS
        assert await server.worker_pid("t/neighbour") == neighbour
        entries = server.entries()
        _check(told, entries_failed=sum(entry.status == "failed" for entry in entries))
        for witness in told.values():
            witness.check(entries)
        print(f"back after at most {slowest:.2f} s, {told['t/victim'].refusals} lost")
        assert slowest < BACK_SECONDS_MAX
        assert (await server.cli("usage", "verify"))[0] == 0


def _check(told: dict[str, Witness], *, entries_failed: int) -> None:
    assert not told["t/neighbour"].refusals
    assert len(told["t/neighbour"].answers) > 100
    # An engine that failed is said so: 500, or an event at the end of a stream that had begun.
    refusals = told["t/victim"].refusals
    assert set(refusals) <= {200, 500}
    assert entries_failed == sum(refusals.values()) > 0


async def _asks(
    server: InferdProcess, model: str, witness: Witness, until: tuple[float, asyncio.Event]
) -> None:
    seed, over = until
    chance = random.Random(seed)
    async with server.client() as client:
        while not over.is_set():
            text = "w " * chance.randint(1, 120)
            await witness.asks(client, body(model, text, stream=chance.random() < 0.5))


async def _kill_often(
    server: InferdProcess, client: httpx.AsyncClient, chance: random.Random
) -> float:
    """Kill, ask, and so on; the slowest answer after a kill."""
    slowest = 0.0
    for _ in range(ROUNDS):
        for _ in range(KILLS):
            await asyncio.sleep(chance.random() * 0.5)
            slowest = max(slowest, await _kill_once(server, client))
        await asyncio.sleep(STABLE_SECONDS)
    return slowest


async def _kill_once(server: InferdProcess, client: httpx.AsyncClient) -> float:
    """Seconds until another process answers."""
    victim = await server.worker_pid("t/victim")
    os.kill(victim, signal.SIGKILL)
    killed_seconds = time.monotonic()

    async def served() -> bool:
        # The socket may tell of the death a moment after the kill.
        answer = await client.post(CHAT, json=body("t/victim"))
        pids = await server.worker_pids()
        return answer.status_code == 200 and pids.get("t/victim", victim) != victim

    await eventually(served)
    return time.monotonic() - killed_seconds
