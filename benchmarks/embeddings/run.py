"""Embeddings and scored pairs per second: inferd against ONNX Runtime and tokenizers by themselves.

`make bench-embeddings`. See README.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.process import without_none  # noqa: E402
from tests.weights import local_card  # noqa: E402

from benchmarks.gateway.load import Connection, Target  # noqa: E402
from benchmarks.gateway.run import machine  # noqa: E402

TOKEN = "benchmark-token-of-thirty-two-characters"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
JUDGE = "inferd/smollm2-reranker"
TEXTS = 256
ROUNDS = 5
BARE_BATCH = 32
WORDS = "the river town boat light old winter letter many under answer engine paper slow"
TICK = os.sysconf("SC_CLK_TCK")
Way = Callable[[], Awaitable[None]]


def texts() -> list[str]:
    """5 to 60 words each, the same in every run."""
    dice = random.Random(7)
    words = WORDS.split()
    return [" ".join(dice.choices(words, k=dice.randint(5, 60))) for _ in range(TEXTS)]


def cpu_seconds(pid: int) -> float:
    """Of a process and its children, also those that are gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(one) for one in fields[11:15]) / TICK
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(cpu_seconds(int(child)) for child in children)


class Bare:
    """What one writes without a server: sorted by length, in batches, mean and norm in numpy."""

    def __init__(self, files: dict[str, str], threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        library: Any = onnxruntime
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = library.InferenceSession(files["model"], options)
        self._tokenizer: Any = Tokenizer.from_file(files["tokenizer"])
        self._tokenizer.no_truncation()
        self._tokenizer.enable_padding()

    def embed(self, given: list[str]) -> Any:
        """All vectors, in the order of the texts."""
        import numpy as np

        order = sorted(range(len(given)), key=lambda index: len(given[index]))
        found: list[Any] = [None] * len(given)
        for at in range(0, len(order), BARE_BATCH):
            part = order[at : at + BARE_BATCH]
            encoded = self._tokenizer.encode_batch([given[index] for index in part])
            ids = np.array([one.ids for one in encoded], np.int64)
            mask = np.array([one.attention_mask for one in encoded], np.int64)
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
            hidden = self._session.run(None, feeds)[0]
            weights = mask[..., None].astype(np.float32)
            vectors = (hidden * weights).sum(1) / weights.sum(1)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            for index, vector in zip(part, vectors, strict=True):
                found[index] = vector
        return found


@asynccontextmanager
async def server(folder: Path) -> AsyncGenerator[tuple[httpx.AsyncClient, int]]:
    """inferd over the shared weights, and its process."""
    (folder / "cards").mkdir()
    for name in (MODEL, JUDGE):
        card: Any = msgspec.to_builtins(local_card(name))
        file = folder / "cards" / f"{name.replace('/', '--')}.toml"
        file.write_bytes(msgspec.toml.encode(without_none(card)))
    environment = {
        **os.environ,
        "INFERD_DATA_DIR": str(folder),
        "INFERD_BOOTSTRAP_TOKEN": TOKEN,
        "INFERD_CONCURRENT_REQUESTS_MAX": "1000",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "inferd.cli", "serve", "--port", "0",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    url = (await process.stdout.readline()).split()[-1].decode()
    headers = {"authorization": f"Bearer {TOKEN}"}
    limits = httpx.Limits(max_connections=TEXTS)
    try:
        async with httpx.AsyncClient(
            base_url=url, headers=headers, timeout=300, limits=limits
        ) as client:
            yield client, process.pid
    finally:
        process.terminate()
        await process.wait()


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    """One call; its answer must be good."""
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text


async def timed(way: Way, pid: int) -> tuple[float, float]:
    """(seconds, CPU seconds of the process that computes)."""
    cpu, began = cpu_seconds(pid), time.perf_counter()
    await way()
    return time.perf_counter() - began, cpu_seconds(pid) - cpu


def ways_of(client: httpx.AsyncClient, bare: Bare, pid: int) -> dict[str, tuple[Way, int]]:
    """Each way to embed the same texts, and the process whose CPU counts."""
    given = texts()

    async def alone() -> None:
        await asyncio.to_thread(bare.embed, given)

    async def one_call(form: str) -> None:
        body = {"model": MODEL, "input": given, "encoding_format": form}
        await post(client, "/v1/embeddings", body)

    async def many_calls() -> None:
        bodies = [{"model": MODEL, "input": one, "encoding_format": "base64"} for one in given]
        await asyncio.gather(*(post(client, "/v1/embeddings", body) for body in bodies))

    async def many_bare_connections() -> None:
        target = Target("inferd", client.base_url.port or 0, TOKEN, "/v1/embeddings")
        connections = [await Connection(target).open() for _ in given]
        asked = (_raw(target, one) for one in given)
        await asyncio.gather(*(one.ask(raw) for one, raw in zip(connections, asked, strict=True)))
        for one in connections:
            one.close()

    return {
        "bare library": (alone, os.getpid()),
        "one call, base64": (lambda: one_call("base64"), pid),
        "one call, numbers": (lambda: one_call("float"), pid),
        f"{TEXTS} calls at once": (many_calls, pid),
        f"{TEXTS} calls at once, without a client": (many_bare_connections, pid),
    }


def _raw(target: Target, text: str) -> bytes:
    """A call as bytes."""
    body = json.dumps({"model": MODEL, "input": text, "encoding_format": "base64"}).encode()
    return (
        f"POST {target.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {target.token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


async def reranked(client: httpx.AsyncClient) -> float:
    """Pairs per second of the judge: 16 passages of about 40 tokens."""
    body = {"query": "Where does the old river end?", "documents": texts()[:16]}
    await post(client, f"/v1/inference/{JUDGE}", body)
    began = time.perf_counter()
    await post(client, f"/v1/inference/{JUDGE}", body)
    return 16 / (time.perf_counter() - began)


async def workers(client: httpx.AsyncClient) -> dict[str, float]:
    """Resident memory of each model's process, in MB."""
    models = (await client.get("/v1/status")).json()["models"]
    found: dict[str, float] = {}
    for model in models:
        if model["pid"] is not None:
            found[model["model"]] = resident_mb(model["pid"])
    return found


def resident_mb(pid: int) -> float:
    """Of one process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1000, 1)


async def main() -> None:
    """Measure, print, keep."""
    # As a worker has it.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    files = {file.role: str(getattr(file.source, "path", "")) for file in local_card(MODEL).files}
    cores = os.cpu_count() or 1
    bare = Bare(files, cores)
    with tempfile.TemporaryDirectory() as data:
        async with server(Path(data)) as (client, pid):
            ways = ways_of(client, bare, pid)
            for way, _ in ways.values():
                await way()
            seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, (way, of) in ways.items():
                    seen[name].append(await timed(way, of))
            pairs = await reranked(client)
            memory = await workers(client)
    rows = [_row(name, measured, seen["bare library"]) for name, measured in seen.items()]
    one, many = (
        statistics.median(cpu for _, cpu in seen[name])
        for name in ("one call, base64", f"{TEXTS} calls at once")
    )
    waited = [
        many_seconds / one_seconds
        for (one_seconds, _), (many_seconds, _) in zip(
            seen["one call, base64"],
            seen[f"{TEXTS} calls at once, without a client"],
            strict=True,
        )
    ]
    print("| way | texts/s | of the bare library | CPU ms a text | texts per CPU second |")
    print("|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    told = {
        "many_over_one_cpu": round(many / one, 3),
        "many_over_one_without_a_client": round(statistics.median(waited), 3),
        "rerank_pairs_per_second": round(pairs, 2),
        "worker_mb": memory,
    }
    print(json.dumps(told, indent=1))
    about = machine()
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    file = Path(__file__).with_name("results") / f"{day}-{about['cores']}-cores.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": about, "results": rows, **told}, indent=1) + "\n")


def _row(
    name: str, measured: list[tuple[float, float]], bare: list[tuple[float, float]]
) -> dict[str, Any]:
    ratios = [b / a for (a, _), (b, _) in zip(measured, bare, strict=True)]
    cpu = statistics.median(cpu for _, cpu in measured)
    return {
        "way": name,
        "texts/s": round(TEXTS / statistics.median(seconds for seconds, _ in measured), 1),
        "ratio": round(statistics.median(ratios), 3),
        "CPU ms a text": round(1000 * cpu / TEXTS, 2),
        "texts per CPU second": round(TEXTS / cpu, 1),
    }


if __name__ == "__main__":
    asyncio.run(main())
