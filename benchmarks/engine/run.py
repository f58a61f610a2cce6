"""Tokens per second and time to the first token: inferd against the bare engine, interleaved.

`make bench-engine`. See README.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.process import without_none  # noqa: E402
from tests.weights import SMOLLM2, smollm2_card, smollm2_path  # noqa: E402

from benchmarks.gateway.run import machine  # noqa: E402
from inferd.engines.base import Resources  # noqa: E402
from inferd.engines.xllamacpp import XllamacppEngine  # noqa: E402
from inferd.tasks.text_generation import (  # noqa: E402
    ChatPrompt,
    Message,
    Sampling,
    Text,
    TextGenerationRequest,
)

TOKEN = "benchmark-token-of-thirty-two-characters"
TOKENS = 48
ROUNDS = 3
STREAMS = (1, 8, 16)
Stream = Callable[[int], Awaitable[tuple[float, int]]]
"""Runs stream number n; returns (seconds to the first text, tokens)."""


def prompt(number: int) -> str:
    """Different prompts, so that no prefix is shared beyond the template."""
    return f"{number}. Write a long story about a town by the sea, its people and their boats."


async def bare(engine: XllamacppEngine, slots: asyncio.Semaphore, number: int) -> tuple[float, int]:
    """One stream on the engine itself."""
    request = TextGenerationRequest(
        SMOLLM2,
        ChatPrompt((Message("user", prompt(number)),)),
        max_tokens=TOKENS,
        sampling=Sampling(temperature=0),
        cache_scope=str(number),
    )
    began, first, count = time.perf_counter(), 0.0, 0
    async with slots, aclosing(engine.run(request, asyncio.Event())) as events:
        async for event in events:
            if isinstance(event, Text):
                first = first or time.perf_counter() - began
                count = event.usage.output_tokens
    return first, count


async def through(client: httpx.AsyncClient, number: int) -> tuple[float, int]:
    """One stream through inferd."""
    body = {
        "model": SMOLLM2,
        "messages": [{"role": "user", "content": prompt(number)}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
    }
    began, first, count = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                first = first or time.perf_counter() - began
                usage = json.loads(line[6:])["usage"]
                count = usage["completion_tokens"] if usage else count
    return first, count


@asynccontextmanager
async def server(folder: Path) -> AsyncGenerator[httpx.AsyncClient]:
    """inferd over the shared weights."""
    (folder / "cards").mkdir()
    card: Any = msgspec.to_builtins(smollm2_card())
    (folder / "cards" / "smollm2.toml").write_bytes(msgspec.toml.encode(without_none(card)))
    environment = {**os.environ, "INFERD_DATA_DIR": str(folder), "INFERD_BOOTSTRAP_TOKEN": TOKEN}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "inferd.cli", "serve", "--port", "0",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    url = (await process.stdout.readline()).split()[-1].decode()
    headers = {"authorization": f"Bearer {TOKEN}"}
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=300) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def round_of(stream: Stream, streams: int, offset: int) -> tuple[float, float]:
    """(tokens per second, median seconds to the first token) of `streams` at once."""
    began = time.perf_counter()
    ends = await asyncio.gather(*(stream(offset + n) for n in range(streams)))
    seconds = time.perf_counter() - began
    return sum(count for _, count in ends) / seconds, statistics.median(f for f, _ in ends)


async def main() -> None:
    """Measure, print, keep."""
    # As a worker has it; llama.cpp's threads read it when the library is loaded, which is later.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ["OMP_NUM_THREADS"] = str(os.cpu_count() or 1)
    card = smollm2_card()
    engine = XllamacppEngine()
    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as runtime, tempfile.TemporaryDirectory() as data:
        resources = Resources({"model": str(smollm2_path())}, threads, runtime)
        await asyncio.to_thread(engine.load, card, resources)
        slots = asyncio.Semaphore(card.slots)
        rows: list[dict[str, float]] = []
        async with server(Path(data)) as client:
            ways: dict[str, Stream] = {
                "bare": lambda n: bare(engine, slots, n),
                "inferd": lambda n: through(client, n),
            }
            for stream in ways.values():
                await round_of(stream, 2, 9000)
            for streams in STREAMS:
                rows.append(await _compare(ways, streams))
    about = machine()
    print("| streams | bare tok/s | inferd tok/s | ratio | bare first ms | inferd first ms |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    file = Path(__file__).with_name("results") / f"{day}-{about['cores']}-cores.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": about, "results": rows}, indent=1) + "\n")
    await engine.close()


async def _compare(ways: dict[str, Stream], streams: int) -> dict[str, float]:
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    firsts: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name, stream in ways.items():
            speed, first = await round_of(stream, streams, 100 * turn + streams)
            speeds[name].append(speed)
            firsts[name].append(first)
    ratios = [b / a for a, b in zip(speeds["bare"], speeds["inferd"], strict=True)]
    return {
        "streams": streams,
        "bare tok/s": round(statistics.median(speeds["bare"]), 1),
        "inferd tok/s": round(statistics.median(speeds["inferd"]), 1),
        "ratio": round(statistics.median(ratios), 3),
        "bare first ms": round(1000 * statistics.median(firsts["bare"]), 1),
        "inferd first ms": round(1000 * statistics.median(firsts["inferd"]), 1),
    }


if __name__ == "__main__":
    asyncio.run(main())
