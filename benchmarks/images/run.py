"""Pictures per second: inferd against the same networks in a loop by themselves, interleaved.

`make bench-images`. See README.md.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import statistics
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.process import InferdProcess, serving  # noqa: E402
from tests.weights import local_card  # noqa: E402

from benchmarks.gateway.run import machine  # noqa: E402

MODEL = "inferd/emoji-flow"
PICTURES = 48
SIDE, STEPS, GUIDANCE = 256, 20, 2.0
AT_ONCE = 8
ROUNDS = 5
PROMPTS = ("red apple", "rocket", "tiger face", "soccer ball", "snowman", "grinning face")
Way = Callable[[], Awaitable[None]]


class Bare:
    """What one writes without a server: 20 steps, decode, enlarge, PNG."""

    def __init__(self, files: dict[str, str], threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        library: Any = onnxruntime
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        self._velocity, self._decoder, self._words = (
            library.InferenceSession(files[role], options)
            for role in ("velocity", "decoder", "text_model")
        )
        self._tokenizer: Any = Tokenizer.from_file(files["tokenizer"])

    def draw(self, prompt: str, seed: int) -> bytes:
        """One PNG."""
        import numpy as np
        from PIL import Image

        ids = np.array([self._tokenizer.encode(prompt).ids], np.int64)
        feeds = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
        pooled = self._words.run(None, feeds)[0].mean(1)
        text = np.concatenate([pooled / np.linalg.norm(pooled), pooled * 0]).astype(np.float32)
        z = np.random.default_rng(seed).standard_normal((1, 320)).astype(np.float32)
        for step in range(STEPS):
            t = np.full(2, step / STEPS, np.float32)
            wanted, plain = self._velocity.run(None, {"z": z.repeat(2, 0), "t": t, "text": text})[0]
            z = (z + (plain + GUIDANCE * (wanted - plain)) / STEPS).astype(np.float32)
        pixels = self._decoder.run(None, {"z": z})[0][0].round().astype(np.uint8)
        sink = io.BytesIO()
        large = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        large.save(sink, "PNG", compress_level=4)
        return sink.getvalue()


def memory_mib(pid: int) -> int:
    """Proportional memory of the largest child: the worker."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    sizes = [
        int(line.split()[1]) >> 10
        for child in children
        for line in Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    ]
    return max(sizes)


async def over_http(client: httpx.AsyncClient, at_once: int) -> None:
    """All pictures, `at_once` requests under way."""
    numbers = iter(range(PICTURES))

    async def one_after_the_other() -> None:
        for number in numbers:
            prompt = PROMPTS[number % len(PROMPTS)]
            body = {"model": MODEL, "prompt": prompt, "size": f"{SIDE}x{SIDE}", "seed": number}
            answer = await client.post("/v1/images/generations", json=body)
            answer.raise_for_status()
            assert b64decode(answer.json()["data"][0]["b64_json"])[1:4] == b"PNG"

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))


async def measured(server: InferdProcess, files: dict[str, str]) -> dict[str, Any]:
    """All ways in turns."""
    one_thread, all_cores = Bare(files, 1), Bare(files, os.cpu_count() or 1)

    async def by_hand(bare: Bare) -> None:
        for number in range(PICTURES):
            bare.draw(PROMPTS[number % len(PROMPTS)], number)

    rates: dict[str, list[float]] = {}
    async with server.client() as client:
        ways: dict[str, Way] = {
            "bare": lambda: by_hand(one_thread),
            "bare_on_all_cores": lambda: by_hand(all_cores),
            "one_at_a_time": lambda: over_http(client, 1),
            f"{AT_ONCE}_at_once": lambda: over_http(client, AT_ONCE),
        }
        for way in ways.values():
            await way()
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began = time.perf_counter()
                await way()
                rates.setdefault(name, []).append(PICTURES / (time.perf_counter() - began))
    ratios = {
        name: [one / bare_rate for one, bare_rate in zip(found, rates["bare"], strict=True)]
        for name, found in rates.items()
    }
    return {
        "pictures_per_second": {name: round(statistics.median(r), 2) for name, r in rates.items()},
        "ratio_to_bare": {name: round(statistics.median(r), 3) for name, r in ratios.items()},
        "ratio_range": {name: [round(min(r), 3), round(max(r), 3)] for name, r in ratios.items()},
        "worker_mib": memory_mib(server.pid),
    }


async def main() -> None:
    card = local_card(MODEL)
    files = {file.role: str(getattr(file.source, "path", "")) for file in card.files}
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), card) as server:
            result = await measured(server, files)
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "load_before": os.getloadavg()[0],
        "model": MODEL,
        "side": SIDE,
        "steps": STEPS,
        "rounds": ROUNDS,
        **result,
    }
    text = json.dumps(report, indent=1) + "\n"
    name = f"{report['date']}-{os.cpu_count()}-cores.json"
    (Path(__file__).parent / "results" / name).write_text(text)
    print(text)


if __name__ == "__main__":
    asyncio.run(main())
