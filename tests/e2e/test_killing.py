"""kill -9 of workers and of the gateway, under load: the short form of tests/chaos."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx

from tests.awake import Stopwatch
from tests.e2e.steps import CHAT, body, card, gone, in_flight, is_alive
from tests.e2e.witness import Witness
from tests.process import InferdProcess, serving


async def test_a_killed_worker_costs_only_what_it_ran(data_dir: Path) -> None:
    async with (
        serving(data_dir, card("t/a", "token_ms=5"), card("t/b", "token_ms=5")) as server,
        server.client() as client,
    ):
        warm = [client.post(CHAT, json=body(model)) for model in ("t/a", "t/b")]
        assert [r.status_code for r in await asyncio.gather(*warm)] == [200, 200]
        streamed = client.post(CHAT, json=body("t/a", "w " * 400, stream=True, user="streamed"))
        plain = client.post(CHAT, json=body("t/a", "w " * 400, user="plain"))
        victims = asyncio.gather(streamed, plain)
        other = asyncio.ensure_future(client.post(CHAT, json=body("t/b", "w " * 60)))
        await in_flight(client, "t/a", 2)
        await in_flight(client, "t/b", 1)
        os.kill(await server.worker_pid("t/a"), signal.SIGKILL)
        told = await victims
        assert told[0].status_code == 200
        assert "engine_failed" in told[0].text
        assert "[DONE]" not in told[0].text
        assert told[1].status_code == 500
        assert told[1].json()["error"]["code"] == "engine_failed"
        assert (await other).status_code == 200
        assert (await client.post(CHAT, json=body("t/a"))).status_code == 200
        failed = [entry for entry in server.entries() if entry.status == "failed"]
        assert {entry.end_user for entry in failed} == {"streamed", "plain"}
        assert {entry.error_code for entry in failed} == {"engine_failed"}
        assert (await client.get("/v1/status")).json()["deaths"] == 1


async def test_a_worker_is_back_within_about_a_second(data_dir: Path) -> None:
    async with serving(data_dir, card("t/a")) as server, server.client() as client:
        for _ in range(3):
            assert (await client.post(CHAT, json=body("t/a"))).status_code == 200
            os.kill(await server.worker_pid("t/a"), signal.SIGKILL)
            clock = Stopwatch()
            assert (await client.post(CHAT, json=body("t/a"))).status_code == 200
            assert clock.seconds() < 2


async def test_an_engine_that_crashes_on_a_request_is_replaced(data_dir: Path) -> None:
    fragile = card("t/fragile", "crash_after=3")
    async with serving(data_dir, fragile) as server, server.client() as client:
        for _ in range(2):
            crashed = await client.post(CHAT, json=body("t/fragile", "one two three four five"))
            assert crashed.status_code == 500
            assert (await client.post(CHAT, json=body("t/fragile", "one two"))).status_code == 200
        assert [entry.status for entry in server.entries()] == ["failed", "succeeded"] * 2


async def test_a_killed_gateway_has_every_answer_that_was_seen_exactly_once(
    data_dir: Path,
) -> None:
    server = InferdProcess(data_dir)
    server.add_card(card("t/echo", "token_ms=1"))
    witness = Witness()
    for _ in range(3):
        await server.start()
        await _load_until_killed(server, witness)
    witness.check(server.entries())
    assert len(witness.answers) > 60
    code, said = await server.cli("usage", "verify")
    assert (code, "all right" in said) == (0, True)
    # Nothing that was set aside for the dead is still held, and work goes on.
    async with serving(data_dir) as again, again.client() as client:
        assert (await client.post(CHAT, json=body("t/echo"))).status_code == 200


async def test_workers_do_not_outlive_a_killed_gateway(data_dir: Path) -> None:
    server = InferdProcess(data_dir)
    server.add_card(card("t/idle"))
    server.add_card(card("t/busy", "token_ms=5"))
    await server.start()
    async with server.client() as client:
        await client.post(CHAT, json=body("t/idle"))
        busy = asyncio.ensure_future(client.post(CHAT, json=body("t/busy", "w " * 450)))
        await in_flight(client, "t/busy", 1)
        pids = await server.worker_pids()
        assert len(pids) == 2
        assert all(is_alive(pid) for pid in pids.values())
        await server.kill()
        (ended,) = await asyncio.gather(busy, return_exceptions=True)
        assert isinstance(ended, httpx.TransportError)
    for pid in pids.values():
        await gone(pid)


async def _load_until_killed(server: InferdProcess, witness: Witness) -> None:
    """Ask from eight clients, plain and streamed; kill -9 once some answers are complete."""
    before = len(witness.answers)

    async def ask(number: int) -> None:
        async with server.client() as client:
            while True:
                text = f"w{number} " * 5
                payload = body("t/echo", text, stream=number % 2 == 0, n=1 + number % 3)
                try:
                    await witness.asks(client, payload)
                except httpx.TransportError:
                    return

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(ask(number))
        await asyncio.wait_for(witness.has_seen(before + 25), 30)
        await server.kill()


async def test_a_killed_gateway_gives_no_limit_anew(data_dir: Path) -> None:
    async with serving(data_dir, card("t/a")) as server:
        async with server.client() as client:
            limit = {"account_id": "*", "requests_per_minute": 2}
            assert (await client.put("/v1/admin/limits", json=limit)).status_code == 200
            told = [(await client.post(CHAT, json=body("t/a"))).status_code for _ in range(3)]
        assert told == [200, 200, 429]
        await server.kill()
        await server.start()
        async with server.client() as client:
            assert (await client.post(CHAT, json=body("t/a"))).status_code == 429
