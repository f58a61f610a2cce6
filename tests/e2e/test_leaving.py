"""A client that leaves, at every stage: its slot is free and its bill is exact.

Each request carries a `user` of its own, by which its ledger entry is found.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from inferd.storage.rows import EntryRow
from tests.awake import Stopwatch
from tests.e2e.steps import CHAT, Visitor, body, card, entry_of, eventually, in_flight, queued
from tests.process import InferdProcess, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

FREED_SECONDS_MAX = 0.25
TOKEN_MS = 5
WORDS = 450
LONG = "w " * WORDS
"""Half of the context, so that the answer is as long."""
WAYS = list(itertools.product([False, True], [False, True]))
"""(streamed, a second request pipelined behind): the second hides the leaving from uvicorn."""
NAMES = [
    f"{'stream' if streamed else 'plain'}-{'pipelined' if pipelined else 'alone'}"
    for streamed, pipelined in WAYS
]
ways = pytest.mark.parametrize(("streamed", "pipelined"), WAYS, ids=NAMES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    cards = [
        card("t/decode", f"token_ms={TOKEN_MS}", slots=2),
        card("t/prefill", "prefill_ms=2", slots=1),
        card("t/line", f"token_ms={TOKEN_MS}", slots=1),
        *(card(f"t/load-{name}", "load_ms=500", slots=1) for name in NAMES),
    ]
    async with serving(tmp_path_factory.mktemp("leaving"), *cards) as running:
        yield running


class Leaver:
    """One visitor who is going to leave."""

    def __init__(self, server: InferdProcess, visitor: Visitor, name: str) -> None:
        self._server = server
        self._name = name
        self.visitor = visitor

    async def leaves(self) -> EntryRow:
        """Hang up; the entry that follows says cancelled, soon, and nothing else was run."""
        clock = Stopwatch()
        left_unix_ns = time.time_ns()
        await self.visitor.leave()
        entry = await entry_of(self._server, self._name)
        assert entry.status == "cancelled"
        freed_seconds = (entry.settled_unix_ns - left_unix_ns) / 1e9
        assert freed_seconds - clock.stood_seconds() < FREED_SECONDS_MAX
        assert not [e for e in self._server.entries() if e.end_user == f"{self._name}-second"]
        return entry


async def comes(server: InferdProcess, model: str, way: tuple[bool, bool], text: str) -> Leaver:
    streamed, pipelined = way
    name = f"{model}-{streamed}-{pipelined}"
    visitor = await Visitor.at(server)
    await visitor.ask(body(model, text, stream=streamed, user=name))
    if pipelined:
        await visitor.ask(body(model, text, user=f"{name}-second"))
    return Leaver(server, visitor, name)


async def is_served(server: InferdProcess, model: str) -> None:
    async with server.client() as client:
        await in_flight(client, model, 0)
        assert (await client.post(CHAT, json=body(model))).status_code == 200


async def other_stream(server: InferdProcess, model: str, **fields: Any) -> Visitor:
    visitor = await Visitor.at(server)
    await visitor.ask(body(model, LONG, stream=True, **fields))
    return visitor


@ways
async def test_in_decode_the_bill_is_what_was_made(
    server: InferdProcess, streamed: bool, pipelined: bool
) -> None:
    async with server.client() as client:
        await client.post(CHAT, json=body("t/decode"))
        leaver = await comes(server, "t/decode", (streamed, pipelined), LONG)
        await in_flight(client, "t/decode", 1)
    # The other one came later: when it has heard three words, so many are made for both.
    other = await other_stream(server, "t/decode")
    await other.hear(3)
    entry = await leaver.leaves()
    assert entry.stage == "decode"
    assert entry.input_tokens == WORDS
    assert 3 <= entry.output_tokens <= entry.runtime_ms / TOKEN_MS + 1
    assert entry.cost_nanos == entry.input_tokens * 1000 + entry.output_tokens * 2000
    await other.hear(3)
    await other.leave()
    await is_served(server, "t/decode")


@ways
async def test_in_prefill_only_what_was_read_is_billed(
    server: InferdProcess, streamed: bool, pipelined: bool
) -> None:
    async with server.client() as client:
        await client.post(CHAT, json=body("t/prefill"))
        leaver = await comes(server, "t/prefill", (streamed, pipelined), LONG)
        await in_flight(client, "t/prefill", 1)
    entry = await leaver.leaves()
    assert entry.stage == "prefill"
    assert entry.input_tokens < WORDS
    assert entry.output_tokens == 0
    assert entry.cost_nanos == entry.input_tokens * 1000
    await is_served(server, "t/prefill")


@ways
async def test_in_the_queue_nothing_is_billed(
    server: InferdProcess, streamed: bool, pipelined: bool
) -> None:
    blocker = await other_stream(server, "t/line")
    await blocker.hear(1)
    leaver = await comes(server, "t/line", (streamed, pipelined), "one two")
    async with server.client() as client:
        await queued(client, "t/line", 1)
        entry = await leaver.leaves()
        await queued(client, "t/line", 0)
    assert entry.stage == "queued"
    assert (entry.input_tokens, entry.output_tokens, entry.cost_nanos) == (0, 0, 0)
    await blocker.hear(1)
    await blocker.leave()
    await is_served(server, "t/line")


@ways
async def test_while_loading_nothing_is_billed_and_the_load_goes_on(
    server: InferdProcess, streamed: bool, pipelined: bool
) -> None:
    model = f"t/load-{NAMES[WAYS.index((streamed, pipelined))]}"
    async with server.client() as client:
        loads = (await client.get("/v1/status")).json()["loads"]
        leaver = await comes(server, model, (streamed, pipelined), "one two")
        await queued(client, model, 1)
        entry = await leaver.leaves()
        assert entry.stage == "loading"
        assert (entry.input_tokens, entry.output_tokens, entry.cost_nanos) == (0, 0, 0)
        assert (await client.post(CHAT, json=body(model))).status_code == 200
        assert (await client.get("/v1/status")).json()["loads"] == loads + 1


async def test_metrics_count_each_who_left_by_stage(server: InferdProcess) -> None:
    async def agrees() -> bool:
        async with server.client() as client:
            shown = (await client.get("/metrics")).text
        counted: Counter[str] = Counter()
        for line in shown.splitlines():
            if line.startswith("inferd_cancelled_total"):
                stage = line.partition('stage="')[2].partition('"')[0]
                counted[stage] += round(float(line.rpartition(" ")[2]))
        cancelled = [entry.stage for entry in server.entries() if entry.status == "cancelled"]
        return bool(cancelled) and counted == Counter(cancelled)

    await eventually(agrees)
