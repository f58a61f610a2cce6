"""The long form of the kill -9 proofs: gateways and workers die at random moments under load."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway import echo_card
from tests.process import InferdProcess

pytestmark = pytest.mark.chaos

CHAT = "/v1/chat/completions"
ROUNDS = 12
CLIENTS = 12


async def ask(server: InferdProcess, seed: int, seen: set[str]) -> None:
    """Plain and streamed calls of random length, some cut off, until the server is gone."""
    dice = random.Random(seed)
    async with server.client() as client:
        while True:
            streamed = dice.random() < 0.5
            body: dict[str, Any] = {
                "model": dice.choice(["t/a", "t/b"]),
                "messages": [{"role": "user", "content": "w " * dice.randint(1, 40)}],
                "stream": streamed,
            }
            try:
                call = client.post(CHAT, json=body)
                if dice.random() < 0.2:
                    await asyncio.wait_for(call, dice.random() * 0.05)
                    continue
                answer = await call
            except TimeoutError:
                continue
            except httpx.TransportError:
                return
            if answer.status_code == 200 and (not streamed or "[DONE]" in answer.text):
                seen.add(answer.headers["x-request-id"])


async def kill_workers(server: InferdProcess, dice: random.Random) -> None:
    """Kill a worker now and then."""
    while True:
        await asyncio.sleep(dice.random())
        try:
            pid = await server.worker_pid(dice.choice(["t/a", "t/b"]))
            os.kill(pid, signal.SIGKILL)
        except (httpx.HTTPError, ValueError, AssertionError, ProcessLookupError):
            continue


async def test_every_answer_that_was_seen_is_billed_once(tmp_path: Path) -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    dice = random.Random(seed)
    server = InferdProcess(tmp_path)
    for name in ("t/a", "t/b"):
        server.add_card(echo_card(name, tags=("echo:token_ms=1",)))
    seen: set[str] = set()
    for turn in range(ROUNDS):
        await server.start()
        clients = [
            asyncio.ensure_future(ask(server, seed + turn * CLIENTS + n, seen))
            for n in range(CLIENTS)
        ]
        killer = asyncio.ensure_future(kill_workers(server, dice))
        await asyncio.sleep(1 + 3 * dice.random())
        await server.kill()
        killer.cancel()
        await asyncio.gather(*clients)
    code, said = await server.cli("usage", "verify")
    ids = [entry.request_id for entry in server.entries()]
    print(f"{len(seen)} answers seen, {len(ids)} entries, {ROUNDS} gateways killed: {said}")
    assert code == 0, said
    assert len(ids) == len(set(ids))
    assert seen <= set(ids)
    assert len(seen) > 500
