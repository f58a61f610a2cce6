"""llama.cpp under leaving clients, kills and swaps."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.awake import Stopwatch
from tests.e2e.steps import CHAT, Visitor, body, entry_of, in_flight
from tests.process import InferdProcess, serving
from tests.weights import SMOLLM2, smollm2_card, smollm2_cut_card

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

STEP_SECONDS_MAX = 0.4
"""The engine looks up between two steps; one takes about 200 ms."""
LONG_PROMPT = "word " * 4000
TALKATIVE = "Tell me everything about the sea."


async def _serves_at_once(server: InferdProcess) -> None:
    async with server.client() as client:
        await in_flight(client, SMOLLM2, 0)
        clock = Stopwatch()
        answer = await client.post(CHAT, json=body(SMOLLM2, "Hello", max_tokens=2))
        assert answer.status_code == 200
        assert int(answer.headers["x-queue-ms"]) - 1000 * clock.stood_seconds() < 250


@pytest.mark.parametrize("streamed", [False, True])
async def test_in_prefill_the_engine_stops_within_a_step(
    smollm2: InferdProcess, streamed: bool
) -> None:
    name = f"prefill {streamed}"
    visitor = await Visitor.at(smollm2)
    async with smollm2.client() as client:
        await client.post(CHAT, json=body(SMOLLM2, "Hello", max_tokens=1))
        await visitor.ask(body(SMOLLM2, LONG_PROMPT, stream=streamed, user=name, max_tokens=8))
        await in_flight(client, SMOLLM2, 1)
    if streamed:
        await visitor.hear(1, b": ping")
    clock = Stopwatch()
    left_unix_ns = time.time_ns()
    await visitor.leave()
    entry = await entry_of(smollm2, name)
    assert (entry.status, entry.stage) == ("cancelled", "prefill")
    freed_seconds = (entry.settled_unix_ns - left_unix_ns) / 1e9
    assert freed_seconds - clock.stood_seconds() < STEP_SECONDS_MAX
    assert entry.input_tokens < 4000
    assert entry.output_tokens == 0
    await _serves_at_once(smollm2)


@pytest.mark.parametrize("pipelined", [False, True])
async def test_in_decode_the_bill_is_what_the_engine_made(
    smollm2: InferdProcess, pipelined: bool
) -> None:
    name = f"decode {pipelined}"
    visitor = await Visitor.at(smollm2)
    await visitor.ask(
        body(SMOLLM2, TALKATIVE, stream=True, user=name, max_tokens=2000, ignored_field=1)
    )
    if pipelined:
        await visitor.ask(body(SMOLLM2, TALKATIVE, max_tokens=2000, user="never run"))
    await visitor.hear(10)
    clock = Stopwatch()
    left_unix_ns = time.time_ns()
    await visitor.leave()
    entry = await entry_of(smollm2, name)
    assert (entry.status, entry.stage) == ("cancelled", "decode")
    freed_seconds = (entry.settled_unix_ns - left_unix_ns) / 1e9
    assert freed_seconds - clock.stood_seconds() < 0.25
    # Ten were heard; what the engine makes within a quarter of a second may come on top.
    assert 10 <= entry.output_tokens < 100
    assert not [e for e in smollm2.entries() if e.end_user == "never run"]
    await _serves_at_once(smollm2)


async def test_who_waits_behind_a_neighbours_long_prompt_leaves_as_quickly(data_dir: Path) -> None:
    async with serving(data_dir, smollm2_card()) as server:
        neighbour, visitor = await Visitor.at(server), await Visitor.at(server)
        async with server.client() as client:
            await client.post(CHAT, json=body(SMOLLM2, "Hello", max_tokens=1))
            worker = await server.worker_pid(SMOLLM2)
            await neighbour.ask(body(SMOLLM2, LONG_PROMPT, stream=True, max_tokens=1))
            await neighbour.hear(1, b": ping")
            await visitor.ask(body(SMOLLM2, "Hello", stream=True, user="behind"))
            await in_flight(client, SMOLLM2, 2)
        clock = Stopwatch()
        left_unix_ns = time.time_ns()
        await visitor.leave()
        entry = await entry_of(server, "behind")
        await neighbour.leave()
        assert entry.status == "cancelled"
        freed_seconds = (entry.settled_unix_ns - left_unix_ns) / 1e9
        assert freed_seconds - clock.stood_seconds() < STEP_SECONDS_MAX
        assert await server.worker_pid(SMOLLM2) == worker


async def test_seven_neighbours_do_not_notice_who_leaves(smollm2: InferdProcess) -> None:
    fields = {"max_tokens": 40, "temperature": 0, "seed": 1}
    async with smollm2.client() as client:
        calls = [
            asyncio.ensure_future(client.post(CHAT, json=body(SMOLLM2, f"Say {n}.", **fields)))
            for n in range(7)
        ]
        visitor = await Visitor.at(smollm2)
        await visitor.ask(body(SMOLLM2, TALKATIVE, stream=True, max_tokens=500))
        await visitor.hear(3)
        await visitor.leave()
        answers = await asyncio.gather(*calls)
    for answer in answers:
        assert answer.status_code == 200
        (choice,) = answer.json()["choices"]
        assert choice["message"]["content"]
        assert choice["finish_reason"] in ("stop", "length")


async def test_a_killed_engine_ends_its_streams_with_an_error_and_is_back(
    smollm2: InferdProcess,
) -> None:
    async with smollm2.client() as client:
        stream = asyncio.ensure_future(
            client.post(CHAT, json=body(SMOLLM2, TALKATIVE, stream=True, max_tokens=2000))
        )
        await in_flight(client, SMOLLM2, 1)
        os.kill(await smollm2.worker_pid(SMOLLM2), signal.SIGKILL)
        clock = Stopwatch()
        told = (await stream).text
        assert "engine_failed" in told
        assert "[DONE]" not in told
        answer = await client.post(CHAT, json=body(SMOLLM2, "Hello", max_tokens=2))
        assert answer.status_code == 200
        # A second or two, with room for a busy machine.
        assert clock.seconds() < 10
    code, said = await smollm2.cli("usage", "verify")
    assert (code, "all right" in said) == (0, True)


async def test_two_real_models_that_do_not_fit_together_take_turns(data_dir: Path) -> None:
    cut = smollm2_cut_card()
    async with (
        serving(data_dir, smollm2_card(), cut) as free,
        free.client() as client,
    ):
        for model in (SMOLLM2, cut.name):
            await client.post(CHAT, json=body(model, "Hello", max_tokens=1))
        models = (await client.get("/v1/status")).json()["models"]
        sizes = [model["memory_bytes"] for model in models]
    assert all(size > 10 << 20 for size in sizes)
    async with (
        serving(data_dir, memory_bytes=max(sizes) + min(sizes) // 2) as tight,
        tight.client() as client,
    ):
        calls = [
            client.post(CHAT, json=body((SMOLLM2, cut.name)[n % 2], f"Say {n}.", max_tokens=4))
            for n in range(12)
        ]
        answers = await asyncio.gather(*calls)
        status = (await client.get("/v1/status")).json()
        resident = [model for model in status["models"] if model["pid"] is not None]
    assert [answer.status_code for answer in answers] == [200] * 12
    assert status["evictions"] >= 1
    assert len(resident) == 1
