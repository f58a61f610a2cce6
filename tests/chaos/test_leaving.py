"""Hundreds of clients that leave at random moments: nothing runs on, and every bill is exact."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.storage.rows import EntryRow
from tests.chaos.dice import dice
from tests.e2e.steps import CHAT, Visitor, body, card, eventually
from tests.e2e.witness import Witness
from tests.process import InferdProcess, serving
from tests.weights import SMOLLM2, smollm2_card

pytestmark = pytest.mark.chaos

VISITORS = 24
VISITS = 1500


async def test_leavers_of_every_stage_free_their_slots_and_pay_what_was_made(
    data_dir: Path,
) -> None:
    chance = dice()
    size = 200 << 20
    cards = [
        card("t/fast", slots=4, memory_bytes=size),
        card("t/slow", "token_ms=2", slots=4, memory_bytes=size),
        card("t/long", "prefill_ms=0.5", "load_ms=100", slots=2, memory_bytes=size),
    ]
    # Two fit at once, so that the third always makes somebody wait for a load.
    async with serving(
        data_dir, *cards, memory_bytes=2 * size + 1, swap_wait_seconds=0.2
    ) as server:
        visits = iter(range(VISITS))
        witness = Witness()
        models = [one.name for one in cards]
        async with asyncio.TaskGroup() as group:
            for _ in range(VISITORS):
                group.create_task(_leaves_often(server, chance, models, visits))
            for _ in range(4):
                group.create_task(_stays(server, witness, models, visits))
        await _is_quiet(server, models)
        entries = server.entries()
        witness.check(entries)
        _check(entries, {"t/slow": 2.0})
        stages = Counter(entry.stage for entry in entries if entry.status == "cancelled")
        print(dict(stages), len(witness.answers), "answered")
        assert set(stages) == {"queued", "loading", "prefill", "decode"}
        assert not witness.refusals
        assert (await server.cli("usage", "verify"))[0] == 0


@pytest.mark.engine
async def test_leavers_of_a_real_engine_free_their_slots(data_dir: Path) -> None:
    chance = dice()
    async with serving(data_dir, smollm2_card()) as server:
        async with server.client() as client:
            await client.post(CHAT, json=body(SMOLLM2, "Hello", max_tokens=1))
        pid = await server.worker_pid(SMOLLM2)
        visits = iter(range(120))
        async with asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(_leaves_often(server, chance, [SMOLLM2], visits))
        await _is_quiet(server, [SMOLLM2])
        assert await server.worker_pid(SMOLLM2) == pid
        _check(server.entries(), {})
        assert (await server.cli("usage", "verify"))[0] == 0


async def _leaves_often(
    server: InferdProcess, chance: random.Random, models: list[str], visits: Iterator[int]
) -> None:
    for number in visits:
        visitor = await Visitor.at(server)
        text = "w " * chance.choice([1, 20, 200])
        payload = body(chance.choice(models), text, user=f"v{number}", max_tokens=200)
        payload["stream"] = chance.random() < 0.5
        payload["n"] = chance.choice([1, 1, 2])
        await visitor.ask(payload)
        if chance.random() < 0.3:
            await visitor.ask(payload | {"user": f"p{number}"})
        if payload["stream"] and chance.random() < 0.5:
            await visitor.hear(chance.choice([1, 2]))
        else:
            await asyncio.sleep(chance.random() * chance.choice([0.005, 0.05, 0.5]))
        await visitor.leave()


async def _stays(
    server: InferdProcess, witness: Witness, models: list[str], visits: Iterator[int]
) -> None:
    async with server.client() as client:
        for number in visits:
            payload = body(models[number % len(models)], "w " * 10, stream=number % 2 == 0)
            await witness.asks(client, payload)


async def _is_quiet(server: InferdProcess, models: list[str]) -> None:
    """Nothing runs, nobody waits, and every model serves the next one."""
    async with server.client() as client:

        async def idle() -> bool:
            told = (await client.get("/v1/status")).json()["models"]
            return not any(model["in_flight"] or model["queued"] for model in told)

        await eventually(idle)
        for model in models:
            assert (
                await client.post(CHAT, json=body(model, "Hello", max_tokens=4))
            ).status_code == 200


def _check(entries: list[EntryRow], token_ms: dict[str, float]) -> None:
    """One entry for each request at most; nobody pays for more than time allowed to make."""
    users = Counter(entry.end_user for entry in entries if entry.end_user)
    assert set(users.values()) == {1}
    for entry in entries:
        assert entry.status in ("succeeded", "cancelled"), entry
        if entry.stage in ("queued", "loading"):
            assert (entry.input_tokens, entry.output_tokens, entry.cost_nanos) == (0, 0, 0)
        if entry.stage == "prefill":
            assert entry.output_tokens == 0
        if pace := token_ms.get(entry.model):
            # n is at most 2.
            assert entry.output_tokens <= 2 * (entry.runtime_ms / pace + 1)
