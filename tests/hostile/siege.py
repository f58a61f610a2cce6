"""A real server under attack beside a neighbour whose stream must not notice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.hostile.attack import Attack, faults_of, leaks, shape_at
from tests.hostile.wire import Answer, ask, port_of, request
from tests.process import TOKEN, InferdProcess

CHAT = "/v1/chat/completions"
GAP_SECONDS_MAX = 5.0
"""An engine's step is a fifth of a second; the rest is for machines that do other things too."""
GROWTH_BYTES_MAX = 160 << 20
"""A body of 10 MB stands in memory several times; what is freed stays with the allocator."""
STREAM_TOKENS = 100


class Late(NamedTuple):
    """An answer and the time it took."""

    seconds: float
    name: str


@dataclass
class Neighbour:
    """Somebody else, who streams all the while."""

    streams: int = 0
    gap_seconds: float = 0
    faults: list[str] = field(default_factory=list[str])


@dataclass
class Siege:
    """A server, and who attacks it."""

    server: InferdProcess
    model: str
    attacker: str
    neighbour: str
    worker_pid: int
    rss_bytes: int
    late: list[Late] = field(default_factory=list[Late])
    gap_seconds: float = 0
    grown_bytes: int = 0
    attacks: int = 0

    async def endure(self, attacks: Iterable[Attack]) -> list[str]:
        """Send them one by one while the neighbour streams; everything that was wrong."""
        faults: list[str] = []
        refused: set[str] = set()
        async with self.beside_a_neighbour(faults):
            for attack in attacks:
                answer, seconds = await self.strike(attack)
                found = self.faults_of(attack, answer, seconds)
                faults += [f"{attack.name[:80]}: {fault}" for fault in found]
                if answer.status >= 400:
                    refused.add(answer.headers.get("x-request-id", ""))
        bills = [e for e in self.server.entries() if e.request_id in refused and e.cost_nanos]
        faults += [f"billed: {bill}" for bill in bills]
        return faults + await self.wounds()

    async def strike(self, attack: Attack) -> tuple[Answer, float]:
        """One attack on a connection of its own."""
        attack = attack.for_model(self.model)
        headers = {"authorization": f"Bearer {self.attacker}", **attack.headers}
        raw = request(attack.method, attack.path, headers, attack.body)
        answer = await ask(port_of(self.server.url), raw)
        self.attacks += 1
        self.late.append(Late(answer.seconds, attack.name))
        return answer, answer.seconds

    def faults_of(self, attack: Attack, answer: Answer, seconds: float) -> list[str]:
        """What is wrong with an answer."""
        faults: list[str] = []
        if answer.status != attack.status:
            faults.append(f"{answer.status}, not {attack.status}: {answer.body[:160]!r}")
        if seconds > attack.seconds_max:
            faults.append(f"took {seconds:.2f} s")
        if answer.status >= 400:
            faults += faults_of(shape_at(attack.method, attack.path), answer.status, answer.body)
            secrets = (TOKEN, self.attacker, self.neighbour, str(self.server.data_dir))
            found = leaks(answer.body, *secrets, sent=attack.body + attack.path.encode())
            faults += [f"tells {hit!r}" for hit in found]
        return faults

    async def wounds(self) -> list[str]:
        """What the server lost for good."""
        faults: list[str] = []
        before, self.worker_pid = self.worker_pid, await self.server.worker_pid(self.model)
        if before != self.worker_pid:
            faults.append("the worker's process died")
        self.grown_bytes = max(self.grown_bytes, rss_bytes(self.server.pid) - self.rss_bytes)
        if self.grown_bytes > GROWTH_BYTES_MAX:
            faults.append(f"the gateway grew by {self.grown_bytes >> 20} MB")
        return faults

    @asynccontextmanager
    async def beside_a_neighbour(self, faults: list[str]) -> AsyncGenerator[Neighbour]:
        """Run a neighbour's streams, one after the other; at the end add what was wrong."""
        told, enough = Neighbour(), asyncio.Event()
        began = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._streams(told, began, enough))
            await began.wait()
            try:
                yield told
            finally:
                enough.set()
        self.gap_seconds = max(self.gap_seconds, told.gap_seconds)
        if told.gap_seconds > GAP_SECONDS_MAX:
            told.faults.append(f"waited {told.gap_seconds:.2f} s between two tokens")
        faults += [f"neighbour: {fault}" for fault in told.faults]

    async def _streams(self, told: Neighbour, began: asyncio.Event, enough: asyncio.Event) -> None:
        async with self.server.client() as client:
            client.headers["authorization"] = f"Bearer {self.neighbour}"
            while not enough.is_set():
                await self._stream(client, told, began)
                told.streams += 1

    async def _stream(
        self, client: httpx.AsyncClient, told: Neighbour, began: asyncio.Event
    ) -> None:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "neighbour"}],
            "max_tokens": STREAM_TOKENS,
            "ignore_eos": True,
            "stream": True,
        }
        loop = asyncio.get_running_loop()
        last, lines = 0.0, list[str]()
        async with client.stream("POST", CHAT, json=body) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    now = loop.time()
                    told.gap_seconds = max(told.gap_seconds, now - last if last else 0)
                    last = now
                    lines.append(line)
                    began.set()
        began.set()
        if not _intact(lines):
            told.faults.append(f"a stream ended with {lines[-2:]}")


def _intact(lines: list[str]) -> bool:
    if len(lines) < 2 or lines[-1] != "data: [DONE]":
        return False
    usage: dict[str, Any] = json.loads(lines[-2][6:])["usage"]
    return usage["completion_tokens"] == STREAM_TOKENS


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process is gone")


async def is_idle(siege: Siege) -> bool:
    """Nothing is being computed for anybody."""
    async with siege.server.client() as client:
        models = (await client.get("/v1/status")).json()["models"]
    return all(model["in_flight"] == 0 for model in models)


async def besieged(server: InferdProcess, model: str) -> Siege:
    """Load the model and give both parties tokens of their own."""
    async with server.client() as client:
        secrets: list[str] = []
        for name in ("attacker", "neighbour"):
            made = await client.post("/v1/api-tokens", json={"name": name})
            secrets.append(made.json()["token"])
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
        assert (await client.post(CHAT, json=body)).status_code == 200
    pid = await server.worker_pid(model)
    return Siege(server, model, *secrets, worker_pid=pid, rss_bytes=rss_bytes(server.pid))
