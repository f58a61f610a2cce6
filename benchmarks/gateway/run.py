"""CPU and latency of inferd as a proxy, beside nginx and LiteLLM before one mock upstream.

`make bench`. Interleaved rounds; CPU from /proc of each server's processes. See README.md.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gateway.load import Result, Target, closed_loop, open_loop  # noqa: E402
from benchmarks.gateway.upstream import MODEL  # noqa: E402

UPSTREAM, NGINX, INFERD, LITELLM = 9100, 9101, 9102, 9103
TOKEN = "benchmark-token-of-thirty-two-characters"
ROUNDS = 5
SHORT_TOKENS = 8
STREAM_TOKENS = 64
TICK = os.sysconf("SC_CLK_TCK")
CARD = f"""
name = "{MODEL}"
task = "text-generation"
engine = "model_server"
context_length = 8192
licence = "none"
summary = "The mock upstream."
[price]
input = "0.02"
output = "0.04"
[model_server]
url = "http://127.0.0.1:{UPSTREAM}/v1"
"""
NGINX_CONFIG = f"""
worker_processes 1; daemon off; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f;
  uwsgi_temp_path u; scgi_temp_path s;
  upstream mock {{ server 127.0.0.1:{UPSTREAM}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{NGINX}; keepalive_requests 1000000;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""
LITELLM_CONFIG = f"""
model_list:
  - model_name: {MODEL}
    litellm_params:
      model: openai/{MODEL}
      api_base: http://127.0.0.1:{UPSTREAM}/v1
      api_key: none
general_settings:
  master_key: {TOKEN}
"""


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        found += family(int(child))
    return found


def wait_port(port: int, seconds: float) -> None:
    """Return once something listens."""
    import socket

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on {port}")


@contextmanager
def process(
    command: list[str], port: int, *, seconds: float = 30, **options: Any
) -> Generator[int]:
    """A server, killed at the end."""
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    try:
        wait_port(port, seconds)
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def start_all(stack: ExitStack, folder: Path) -> dict[str, tuple[Target, int]]:
    """Name → (target, pid) of what is installed."""
    python = sys.executable
    upstream = str(Path(__file__).with_name("upstream.py"))
    pid = stack.enter_context(process([python, upstream, str(UPSTREAM)], UPSTREAM, cwd=ROOT))
    started = {"direct": (Target("direct", UPSTREAM, TOKEN), pid)}
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if Path(nginx).exists():
        config = folder / "nginx.conf"
        config.write_text(NGINX_CONFIG)
        command = [nginx, "-p", str(folder), "-c", str(config)]
        started["nginx"] = (
            Target("nginx", NGINX, TOKEN),
            stack.enter_context(process(command, NGINX)),
        )
    data = folder / "inferd"
    (data / "cards").mkdir(parents=True)
    (data / "cards" / "mock.toml").write_text(CARD)
    environment = {**os.environ, "INFERD_DATA_DIR": str(data), "INFERD_BOOTSTRAP_TOKEN": TOKEN}
    command = [python, "-m", "inferd.cli", "serve", "--port", str(INFERD)]
    pid = stack.enter_context(process(command, INFERD, env=environment, cwd=folder))
    started["inferd"] = (Target("inferd", INFERD, TOKEN), pid)
    litellm = os.environ.get("LITELLM", "")
    if litellm and Path(litellm).exists():
        config = folder / "litellm.yaml"
        config.write_text(LITELLM_CONFIG)
        command = [litellm, "--config", str(config), "--port", str(LITELLM), "--host", "127.0.0.1"]
        pid = stack.enter_context(process(command, LITELLM, seconds=120))
        started["litellm"] = (Target("litellm", LITELLM, TOKEN), pid)
    return started


class Meter:
    """CPU of one server around a run."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    async def around(self, work: Awaitable[Result]) -> tuple[Result, float]:
        before = cpu_seconds(family(self._pid))
        result = await work
        return result, cpu_seconds(family(self._pid)) - before


async def measure(started: dict[str, tuple[Target, int]]) -> dict[str, dict[str, float]]:
    """All scenarios, interleaved: A B C A B C."""
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in started}

    def note(name: str, key: str, value: float) -> None:
        rows[name].setdefault(key, []).append(value)

    for target, _ in started.values():
        await closed_loop(
            target, target.request(stream=False, max_tokens=SHORT_TOKENS), clients=8, requests=200
        )
    for _ in range(ROUNDS):
        for name, (target, pid) in started.items():
            slow = name == "litellm"
            short = target.request(stream=False, max_tokens=SHORT_TOKENS)
            count = 300 if slow else 3000
            result, cpu = await Meter(pid).around(
                closed_loop(target, short, clients=32, requests=count)
            )
            note(name, "cpu_us_per_request", 1e6 * cpu / count)
            note(name, "requests_per_second", count / result.seconds)
            result, _ = await Meter(pid).around(
                closed_loop(target, short, clients=1, requests=100 if slow else 400)
            )
            note(name, "sequential_p50_ms", result.percentile(0.5))
            stream = target.request(stream=True, max_tokens=STREAM_TOKENS, pace_ms=5)
            streams = 32 if slow else 160
            result, cpu = await Meter(pid).around(
                closed_loop(target, stream, clients=32, requests=streams)
            )
            note(name, "cpu_us_per_event", 1e6 * cpu / (streams * STREAM_TOKENS))
            if not slow:
                result, _ = await Meter(pid).around(
                    open_loop(target, short, per_second=500, seconds=3)
                )
                note(name, "p99_ms_at_500_per_second", result.percentile(0.99))
            first = target.request(stream=True, max_tokens=2)
            result = await closed_loop(target, first, clients=1, requests=100)
            note(name, "first_byte_p50_ms", 1000 * statistics.median(result.first_bytes))
    return {
        name: {key: round(statistics.median(values), 3) for key, values in scenarios.items()}
        for name, scenarios in rows.items()
    }


def machine() -> dict[str, object]:
    """What it ran on."""
    model = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "python": sys.version.split()[0],
        "load_average": os.getloadavg()[0],
    }


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown, one row for each server."""
    keys = list(results["direct"])
    lines = ["| server | " + " | ".join(keys) + " |", "|" + "---|" * (len(keys) + 1)]
    for name, values in results.items():
        lines.append(f"| {name} | " + " | ".join(str(values.get(key, "–")) for key in keys) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, keep."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = start_all(stack, folder)
        about = machine()
        results = uvloop.run(measure(started))
    print(table(results))
    if "nginx" in results:
        ratio = results["inferd"]["cpu_us_per_request"] / results["nginx"]["cpu_us_per_request"]
        print(f"\ninferd costs {ratio:.1f} times the CPU of nginx for each short request")
    if "litellm" in results:
        ratio = results["litellm"]["cpu_us_per_request"] / results["inferd"]["cpu_us_per_request"]
        print(f"LiteLLM costs {ratio:.0f} times the CPU of inferd")
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    cores = about["cores"]
    file = Path(__file__).with_name("results") / f"{day}-{cores}-cores.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
