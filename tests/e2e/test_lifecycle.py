"""Leaving, killing, draining, swapping: real processes, echo models, exact bills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from inferd.catalog.card import ModelCard
from tests.gateway import echo_card
from tests.process import TOKEN, InferdProcess, serving

CHAT = "/v1/chat/completions"


def body(model: str, text: str = "one two", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def card(name: str, *tags: str, **changes: Any) -> ModelCard:
    return echo_card(name, tags=tuple(f"echo:{tag}" for tag in tags), **changes)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, at the pace of the answers, until something holds."""
    async with asyncio.timeout(15):
        while not await holds():
            await asyncio.sleep(0.005)


async def in_flight(client: httpx.AsyncClient, model: str, count: int) -> None:
    async def holds() -> bool:
        models = (await client.get("/v1/status")).json()["models"]
        return any(m["model"] == model and m["in_flight"] == count for m in models)

    await eventually(holds)


async def entries_written(server: InferdProcess, count: int) -> None:
    async def holds() -> bool:
        return len(server.entries()) >= count

    await eventually(holds)


def _is_alive(pid: int) -> bool:
    """A process that is there and no zombie that its new parent has not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def leave_after(server: InferdProcess, payload: dict[str, Any], chunks: int) -> None:
    """Open a stream, read some chunks, cut the connection."""
    async with server.client() as client, client.stream("POST", CHAT, json=payload) as stream:
        seen = 0
        async for line in stream.aiter_lines():
            seen += line.startswith("data: ")
            if seen == chunks:
                return


class TestLeaving:
    async def test_in_decode_the_bill_is_what_was_made(self, data_dir: Path) -> None:
        async with serving(data_dir, card("t/slow", "token_ms=5", slots=1)) as server:
            await leave_after(server, body("t/slow", "w " * 500, stream=True), 5)
            await entries_written(server, 1)
            (entry,) = server.entries()
            assert (entry.status, entry.stage) == ("cancelled", "decode")
            assert 5 <= entry.output_tokens < 120
            assert entry.cost_nanos == entry.input_tokens * 1000 + entry.output_tokens * 2000
            async with server.client() as client:
                assert (await client.post(CHAT, json=body("t/slow"))).status_code == 200

    async def test_in_prefill_only_what_was_read_is_billed(self, data_dir: Path) -> None:
        slow = card("t/slow", "prefill_ms=2", slots=1)
        async with serving(data_dir, slow) as server, server.client() as client:
            await client.post(CHAT, json=body("t/slow"))
            call = asyncio.ensure_future(client.post(CHAT, json=body("t/slow", "w " * 900)))
            await in_flight(client, "t/slow", 1)
            call.cancel()
            await entries_written(server, 2)
            entry = server.entries()[1]
            assert (entry.status, entry.stage) == ("cancelled", "prefill")
            assert entry.input_tokens < 900
            assert entry.output_tokens == 0

    async def test_in_the_queue_and_while_loading_nothing_is_billed(self, data_dir: Path) -> None:
        slow = card("t/slow", "load_ms=400", "token_ms=5", slots=1)
        async with serving(data_dir, slow) as server, server.client() as client:
            loading = asyncio.ensure_future(client.post(CHAT, json=body("t/slow")))

            async def is_loading() -> bool:
                models = (await client.get("/v1/status")).json()["models"]
                return any(m["queued"] == 1 for m in models)

            await eventually(is_loading)
            loading.cancel()
            await entries_written(server, 1)
            running = asyncio.ensure_future(client.post(CHAT, json=body("t/slow", "w " * 300)))
            await in_flight(client, "t/slow", 1)
            queued = asyncio.ensure_future(client.post(CHAT, json=body("t/slow")))
            await eventually(is_loading)
            queued.cancel()
            await entries_written(server, 2)
            running.cancel()
            first, second = server.entries()[:2]
            assert (first.stage, first.cost_nanos, first.status) == ("loading", 0, "cancelled")
            assert (second.stage, second.cost_nanos, second.status) == ("queued", 0, "cancelled")

    async def test_with_a_pipelined_second_request(self, data_dir: Path) -> None:
        async with serving(data_dir, card("t/slow", "token_ms=5", slots=1)) as server:
            port = int(server.url.rpartition(":")[2])
            payload = json.dumps(body("t/slow", "w " * 900)).encode()
            raw = (
                f"POST {CHAT} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {TOKEN}\r\n"
                f"content-length: {len(payload)}\r\n\r\n"
            ).encode() + payload
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            async with server.client() as client:
                await in_flight(client, "t/slow", 1)
            writer.write(raw)
            await writer.drain()
            writer.close()
            await entries_written(server, 1)
            assert server.entries()[0].status == "cancelled"


class TestWaiting:
    async def test_a_stream_gets_headers_and_pings_while_the_model_loads(
        self, data_dir: Path
    ) -> None:
        async with serving(data_dir, card("t/late", "load_ms=1500")) as server:
            async with (
                server.client() as client,
                client.stream("POST", CHAT, json=body("t/late", stream=True)) as stream,
            ):
                assert stream.status_code == 200
                lines = [line async for line in stream.aiter_lines() if line]
            assert lines[0].startswith(": ping")
            assert lines[-1] == "data: [DONE]"

    async def test_models_that_do_not_fit_together_swap_without_losing_a_request(
        self, data_dir: Path
    ) -> None:
        size = 300 << 20
        cards = [card(f"t/m{n}", "token_ms=1", memory_bytes=size) for n in range(3)]
        async with (
            serving(data_dir, *cards, memory_bytes=size + (100 << 20)) as server,
            server.client() as client,
        ):
            turns = iter(range(60))

            async def one_client() -> list[int]:
                return [
                    (await client.post(CHAT, json=body(f"t/m{n % 3}"))).status_code for n in turns
                ]

            statuses = [
                s for told in await asyncio.gather(*(one_client() for _ in range(8))) for s in told
            ]
            assert statuses == [200] * 60
            status = (await client.get("/v1/status")).json()
            assert 2 <= status["evictions"] <= 60 / 8 + 2

    async def test_an_idle_model_is_unloaded_and_comes_back(self, data_dir: Path) -> None:
        async with (
            serving(data_dir, card("t/echo"), idle_seconds=0.2) as server,
            server.client() as client,
        ):
            assert (await client.post(CHAT, json=body("t/echo"))).status_code == 200
            pid = await server.worker_pid("t/echo")

            async def gone() -> bool:
                return not _is_alive(pid)

            await eventually(gone)
            assert (await client.post(CHAT, json=body("t/echo"))).status_code == 200


class TestKilling:
    async def test_a_killed_worker_costs_only_what_it_ran(self, data_dir: Path) -> None:
        async with (
            serving(data_dir, card("t/a", "token_ms=5"), card("t/b", "token_ms=5")) as server,
            server.client() as client,
        ):
            warm = [client.post(CHAT, json=body(model)) for model in ("t/a", "t/b")]
            assert [r.status_code for r in await asyncio.gather(*warm)] == [200, 200]
            stream = body("t/a", "w " * 400, stream=True)
            victim = asyncio.ensure_future(client.post(CHAT, json=stream))
            other = asyncio.ensure_future(client.post(CHAT, json=body("t/b", "w " * 60)))
            await in_flight(client, "t/a", 1)
            await in_flight(client, "t/b", 1)
            os.kill(await server.worker_pid("t/a"), signal.SIGKILL)
            told = (await victim).text
            assert "engine_failed" in told
            assert "[DONE]" not in told
            assert (await other).status_code == 200
            assert (await client.post(CHAT, json=body("t/a"))).status_code == 200

    async def test_a_request_right_after_the_kill_is_served(self, data_dir: Path) -> None:
        async with serving(data_dir, card("t/a")) as server, server.client() as client:
            for _ in range(3):
                assert (await client.post(CHAT, json=body("t/a"))).status_code == 200
                os.kill(await server.worker_pid("t/a"), signal.SIGKILL)
                assert (await client.post(CHAT, json=body("t/a"))).status_code == 200

    async def test_a_killed_gateway_has_every_answer_that_was_seen_exactly_once(
        self, data_dir: Path
    ) -> None:
        server = InferdProcess(data_dir)
        server.add_card(card("t/echo", "token_ms=1"))
        seen: set[str] = set()
        for _ in range(3):
            await server.start()
            await _load_until_killed(server, seen)
        await server.start()
        async with server.client() as client:
            verified = (await client.post("/v1/usage/verify", json={})).json()
        await server.stop()
        ids = [entry.request_id for entry in server.entries()]
        assert len(ids) == len(set(ids))
        assert seen <= set(ids)
        assert len(seen) > 20
        assert verified["differences"] == []

    async def test_workers_do_not_outlive_a_killed_gateway(self, data_dir: Path) -> None:
        server = InferdProcess(data_dir)
        server.add_card(card("t/echo"))
        await server.start()
        async with server.client() as client:
            await client.post(CHAT, json=body("t/echo"))
        pid = await server.worker_pid("t/echo")
        await server.kill()

        async def gone() -> bool:
            return not _is_alive(pid)

        await eventually(gone)


async def _load_until_killed(server: InferdProcess, seen: set[str]) -> None:
    """Ask from eight clients, plain and streamed; kill -9 once some answers are complete."""
    enough = asyncio.Event()
    before = len(seen)

    async def ask(number: int) -> None:
        async with server.client() as client:
            while True:
                streamed = number % 2 == 0
                payload = body("t/echo", f"w{number} " * 5, stream=streamed)
                try:
                    answer = await client.post(CHAT, json=payload)
                except httpx.TransportError:
                    return
                if answer.status_code == 200 and (not streamed or "[DONE]" in answer.text):
                    seen.add(answer.headers["x-request-id"])
                if len(seen) >= before + 25:
                    enough.set()

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(ask(number))
        await asyncio.wait_for(enough.wait(), 30)
        await server.kill()


class TestStopping:
    async def test_ctrl_c_lets_streams_finish_and_refuses_new_calls(self, data_dir: Path) -> None:
        async with serving(data_dir, card("t/slow", "token_ms=10")) as server:
            async with server.client() as client, server.client() as late:
                await client.post(CHAT, json=body("t/slow"))
                payload = body("t/slow", "w " * 100, stream=True)
                stream = asyncio.ensure_future(client.post(CHAT, json=payload))
                await in_flight(late, "t/slow", 1)
                server.interrupt()

                async def refuses() -> bool:
                    answer = await late.post(CHAT, json=body("t/slow"))
                    return answer.status_code == 503 and "retry-after" in answer.headers

                await eventually(refuses)
                assert "[DONE]" in (await stream).text
            assert await server.wait() == 0
            assert not (data_dir / "server.json").exists()

    async def test_a_second_server_on_the_same_data_is_refused(self, data_dir: Path) -> None:
        async with serving(data_dir, card("t/echo")) as server:
            code, said = await server.cli("serve", "--port", "0")
            assert code == 1
            assert "Another inferd is serving" in said

    async def test_an_unknown_variable_stops_the_start_with_its_name(self, data_dir: Path) -> None:
        server = InferdProcess(data_dir, prot=1)
        with pytest.raises(AssertionError, match="INFERD_PROT is not a setting"):
            await server.start()


class TestWithoutAServer:
    async def test_the_cli_runs_a_model_meters_it_and_manages_tokens(self, data_dir: Path) -> None:
        server = InferdProcess(data_dir)
        server.add_card(card("t/echo"))
        assert await server.cli("run", "t/echo", "hello there") == (0, "hello there\n")
        (entry,) = server.entries()
        assert (entry.status, entry.output_tokens) == ("succeeded", 2)
        code, secret = await server.cli("token", "create", "ci")
        assert (code, secret.startswith("ifd_")) == (0, True)
        _, listed = await server.cli("token", "list")
        (token_id,) = [line.split()[0] for line in listed.splitlines() if line.endswith(" ci")]
        assert (await server.cli("token", "revoke", token_id))[0] == 0
        assert (await server.cli("token", "revoke", token_id))[0] == 1
        _, report = await server.cli("usage", "--json")
        assert msgspec.json.decode(report)["rows"][0]["requests"] == 1
        code, said = await server.cli("run", "t/unknown", "hello")
        assert (code, "inferd: " in said) == (1, True)
