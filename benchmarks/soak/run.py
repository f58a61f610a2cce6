"""Does the gateway keep memory? A million mixed requests against a real server. See README.md.

`make bench-soak`, or `python benchmarks/soak/run.py --requests 200000`. Exits 1 when resident
memory grows by more than the bar.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gateway.run import machine  # noqa: E402
from benchmarks.soak.client import Caller  # noqa: E402
from benchmarks.soak.scenario import TASKS, Ask, asks, card, order  # noqa: E402

TOKEN = "bootstrap-token-of-the-soak-0123456789"
BAR_BYTES = 1_000_000
"""Growth for 100,000 requests after the warm-up."""
WARM_SHARE = 0.25
SAMPLES = 80


class Sample(NamedTuple):
    """Memory after so many requests."""

    requests: int
    gateway_bytes: int
    anonymous_bytes: int
    """Of the gateway, without what it has mapped from files."""
    workers_bytes: int


class Server:
    """One `inferd serve` with a model of the echo engine for each task."""

    def __init__(self, folder: Path) -> None:
        cards = folder / "cards"
        cards.mkdir(parents=True)
        for task in TASKS:
            (cards / f"{task}.toml").write_text(card(task))
        environment = {
            **os.environ,
            "INFERD_DATA_DIR": str(folder),
            "INFERD_PORT": "0",
            "INFERD_BOOTSTRAP_TOKEN": TOKEN,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "inferd.cli", "serve"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "serves on" not in line:
            raise SystemExit("The server does not start.")
        self.port = int(line.rsplit(":", 1)[1].strip().rstrip("/"))

    def sample(self, requests: int) -> Sample:
        """Memory now."""
        gateway = self._process.pid
        listed = subprocess.run(
            ["ps", "-o", "rss=", "--ppid", str(gateway)],
            capture_output=True,
            text=True,
            check=False,
        )
        workers = 1024 * sum(int(one) for one in listed.stdout.split())
        resident, anonymous = _resident(gateway, "VmRSS"), _resident(gateway, "RssAnon")
        return Sample(requests, resident, anonymous, workers)

    def cpu_seconds(self) -> float:
        """Of the gateway."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


def _resident(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024


def growth(samples: list[Sample], field: str) -> float:
    """Bytes for 100,000 requests after the warm-up: the slope of the straight line that fits."""
    last = samples[-1].requests
    kept = [one for one in samples if one.requests >= last * WARM_SHARE]
    xs = [one.requests for one in kept]
    ys: list[int] = [getattr(one, field) for one in kept]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    over = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return 100_000 * over / sum((x - x_mean) ** 2 for x in xs)


async def soak(server: Server, count: int, callers: int, told: Counter[str]) -> list[Sample]:
    """Ask, and look at the memory now and then."""
    samples: list[Sample] = []
    every = max(1, count // SAMPLES)
    began = time.monotonic()

    def next_ask(kinds: list[Ask]) -> Iterator[Ask]:
        for block in range(0, count, every):
            for at, ask in enumerate(order(kinds, min(every, count - block), seed=block)):
                if at == 0:
                    samples.append(server.sample(block))
                    rate = block / (time.monotonic() - began)
                    show = samples[-1].gateway_bytes / 1e6
                    if sys.stderr.isatty():
                        print(
                            f"\r{block:9} requests, {rate:6.0f}/s, {show:7.2f} MB",
                            end="",
                            file=sys.stderr,
                            flush=True,
                        )
                yield ask

    line = next_ask(asks(TOKEN))
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(Caller(server.port, line, told).run())
    samples.append(server.sample(count))
    return samples


def main() -> None:
    """Run, print, keep, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--keep", action="store_true", help="write results/")
    given = parser.parse_args()
    os.nice(10)
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data")
        began = time.monotonic()
        try:
            samples = uvloop.run(soak(server, given.requests, given.callers, told))
            cpu = server.cpu_seconds()
        finally:
            server.stop()
    seconds = time.monotonic() - began
    grown = growth(samples, "gateway_bytes")
    results = {
        "requests": given.requests,
        "requests_per_second": round(given.requests / seconds),
        "gateway_cpu_ms_per_request": round(1000 * cpu / given.requests, 3),
        "gateway_growth_mb_per_100000": round(grown / 1e6, 3),
        "gateway_anonymous_growth_mb_per_100000": round(
            growth(samples, "anonymous_bytes") / 1e6, 3
        ),
        "workers_growth_mb_per_100000": round(growth(samples, "workers_bytes") / 1e6, 3),
        "gateway_mb": [round(one.gateway_bytes / 1e6, 2) for one in samples[:: SAMPLES // 20]],
        "workers_mb": [round(one.workers_bytes / 1e6, 1) for one in samples[:: SAMPLES // 20]],
        "told": dict(told.most_common()),
    }
    print(json.dumps(results, indent=1))
    if given.keep:
        about = machine()
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        file = Path(__file__).with_name("results") / f"{day}-{about['cores']}-cores.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")
    sys.exit(grown > BAR_BYTES)


if __name__ == "__main__":
    main()
