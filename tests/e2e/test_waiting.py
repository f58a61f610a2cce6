"""Models that load late, do not fit together, or idle: nobody who waits is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.e2e.steps import CHAT, Visitor, body, card, eventually, gone, in_flight, queued
from tests.process import serving


async def test_a_stream_gets_headers_and_pings_while_the_model_loads(data_dir: Path) -> None:
    late = card("t/late", "load_ms=1500")
    async with (
        serving(data_dir, late) as server,
        server.client() as client,
        client.stream("POST", CHAT, json=body("t/late", stream=True)) as stream,
    ):
        assert stream.status_code == 200
        lines = [line async for line in stream.aiter_lines() if line]
    assert lines[0].startswith(": ping")
    assert lines[-1] == "data: [DONE]"


async def test_a_plain_call_waits_for_the_load_and_status_says_why(data_dir: Path) -> None:
    late = card("t/late", "load_ms=800")
    async with serving(data_dir, late) as server, server.client() as client:
        call = asyncio.ensure_future(client.post(CHAT, json=body("t/late")))
        await queued(client, "t/late", 1)
        (model,) = (await client.get("/v1/status")).json()["models"]
        assert model["state"] == "loading"
        assert "t/late" in model["loading"]
        answer = await call
        assert answer.status_code == 200
        assert int(answer.headers["x-queue-ms"]) >= 800


async def test_a_model_that_cannot_load_says_so_and_when_to_try_again(data_dir: Path) -> None:
    broken = card("t/broken", "load_fails=1")
    async with serving(data_dir, broken, card("t/fine")) as server, server.client() as client:
        for _ in range(2):
            answer = await client.post(CHAT, json=body("t/broken"))
            assert answer.status_code == 503
            assert "t/broken" in answer.json()["error"]["message"]
            assert int(answer.headers["retry-after"]) >= 1
        assert (await client.post(CHAT, json=body("t/fine"))).status_code == 200
        assert [entry.model for entry in server.entries()] == ["t/fine"]


async def test_a_model_over_the_memory_budget_is_refused_with_both_numbers(
    data_dir: Path,
) -> None:
    huge = card("t/huge", memory_bytes=900 << 20)
    async with (
        serving(data_dir, huge, memory_bytes=500 << 20) as server,
        server.client() as client,
    ):
        answer = await client.post(CHAT, json=body("t/huge"))
    assert answer.status_code == 503
    assert "900 MiB" in answer.json()["error"]["message"]
    assert "500 MiB" in answer.json()["error"]["message"]


async def test_models_that_do_not_fit_together_swap_without_losing_a_request(
    data_dir: Path,
) -> None:
    size = 300 << 20
    cards = [card(f"t/m{n}", "token_ms=1", memory_bytes=size) for n in range(3)]
    async with (
        serving(data_dir, *cards, memory_bytes=size + (100 << 20)) as server,
        server.client() as client,
    ):
        turns = iter(range(60))

        async def one_client() -> list[int]:
            return [(await client.post(CHAT, json=body(f"t/m{n % 3}"))).status_code for n in turns]

        told = await asyncio.gather(*(one_client() for _ in range(8)))
        assert [status for statuses in told for status in statuses] == [200] * 60
        status = (await client.get("/v1/status")).json()
        assert 2 <= status["evictions"] <= 60 / 8 + 2


async def test_a_running_stream_is_not_cut_for_another_model(data_dir: Path) -> None:
    size = 300 << 20
    first = card("t/first", "token_ms=10", memory_bytes=size)
    second = card("t/second", memory_bytes=size)
    async with (
        serving(
            data_dir, first, second, memory_bytes=size + (1 << 20), swap_wait_seconds=0.05
        ) as server,
        server.client() as client,
    ):
        stream = asyncio.ensure_future(
            client.post(CHAT, json=body("t/first", "w " * 100, stream=True))
        )
        await in_flight(client, "t/first", 1)
        assert (await client.post(CHAT, json=body("t/second"))).status_code == 200
        assert stream.done()
        assert stream.result().text.endswith("data: [DONE]\n\n")
        assert stream.result().text.count("chat.completion.chunk") == 101


async def test_an_idle_model_is_unloaded_and_comes_back(data_dir: Path) -> None:
    slow = card("t/slow", "token_ms=20")
    async with serving(data_dir, slow, idle_seconds=0.2) as server, server.client() as client:
        visitor = await Visitor.at(server)
        await visitor.ask(body("t/slow", "w " * 450, stream=True))
        await visitor.hear(1)
        # While it computes, however slow the machine is, it cannot be gone.
        worker = await server.worker_pid("t/slow")
        await visitor.leave()
        await gone(worker)
        assert (await client.post(CHAT, json=body("t/slow"))).status_code == 200


async def test_a_model_is_never_unloaded_under_a_running_request(data_dir: Path) -> None:
    slow = card("t/slow", "token_ms=10")
    async with (
        serving(data_dir, slow, idle_seconds=0) as server,
        server.client() as client,
    ):
        answer = await client.post(CHAT, json=body("t/slow", "w " * 60))
        assert answer.json()["usage"]["completion_tokens"] == 60

        async def unloaded() -> bool:
            return not await server.worker_pids()

        await eventually(unloaded)


async def test_a_full_queue_is_told_at_once_when_to_come_back(data_dir: Path) -> None:
    slow = card("t/slow", "token_ms=5", slots=1)
    async with serving(data_dir, slow, queue_size_max=1) as server, server.client() as client:
        running, waiting = await Visitor.at(server), await Visitor.at(server)
        await running.ask(body("t/slow", "w " * 450, stream=True))
        await running.hear(1)
        await waiting.ask(body("t/slow", "w " * 450, stream=True))
        await queued(client, "t/slow", 1)
        shed = await client.post(CHAT, json=body("t/slow"))
        assert shed.status_code == 429
        assert int(shed.headers["retry-after"]) >= 1
        await running.leave()
        # The next in line is on, and the line has room again.
        await waiting.hear(1)
        await waiting.leave()
        assert (await client.post(CHAT, json=body("t/slow"))).status_code == 200
        assert [entry.status for entry in server.entries()].count("failed") == 0
