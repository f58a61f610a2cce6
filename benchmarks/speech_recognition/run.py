"""Speech recognition: inferd against faster-whisper by itself, interleaved.

`make bench-speech-recognition`. See README.md.
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
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.process import serving  # noqa: E402
from tests.recordings import clips, joined, two_cities  # noqa: E402
from tests.weights import local_card  # noqa: E402

from benchmarks.embeddings.run import cpu_seconds, resident_mb  # noqa: E402
from benchmarks.gateway.run import machine  # noqa: E402
from inferd.engines.base import Resources  # noqa: E402

MODEL = "openai/whisper-base"
ROUNDS = 5
LONG_CLIPS = 60
"""Some five minutes, for a short clip to come between."""
Way = Callable[[], Awaitable[None]]


class Bare:
    """The library as one calls it without a server."""

    def __init__(self, folder: Path) -> None:
        import faster_whisper

        library: Any = faster_whisper
        self._model: Any = library.WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=os.cpu_count() or 1
        )

    def hear(self, content: bytes, language: str | None) -> str:
        """All text."""
        told: Any = self._model.transcribe(io.BytesIO(content), beam_size=1, language=language)
        return "".join(one.text for one in told[0])


async def through(client: httpx.AsyncClient, content: bytes, language: str | None) -> str:
    """One call."""
    data = {"model": MODEL} | ({"language": language} if language else {})
    files = {"file": ("clip.wav", content)}
    answer = await client.post("/v1/audio/transcriptions", data=data, files=files)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["text"])


def scenarios(client: httpx.AsyncClient, bare: Bare) -> dict[str, tuple[float, Way, Way]]:
    """Name → seconds of sound, the library's way, inferd's way."""
    short = [clip.content for clip in clips()]
    long = [two_cities().content]

    def library(recordings: list[bytes], language: str | None) -> Way:
        async def way() -> None:
            for one in recordings:
                await asyncio.to_thread(bare.hear, one, language)

        return way

    def server(recordings: list[bytes], language: str | None, *, at_once: bool = False) -> Way:
        async def way() -> None:
            calls = [through(client, one, language) for one in recordings]
            if at_once:
                await asyncio.gather(*calls)
            else:
                for call in calls:
                    await call

        return way

    return {
        "5 clips": (24.73, library(short, "en"), server(short, "en")),
        "5 clips at once": (24.73, library(short, "en"), server(short, "en", at_once=True)),
        "5 clips, language unknown": (24.73, library(short, None), server(short, None)),
        "44 s": (44.37, library(long, "en"), server(long, "en")),
    }


async def compare(pid: int, seconds: float, bare: Way, inferd: Way) -> dict[str, float]:
    """Real-time factors: time to hear over time of the sound; and the same of CPU time."""
    rounds: list[list[float]] = []
    for _ in range(ROUNDS):
        took: list[float] = []
        for way, process in ((bare, os.getpid()), (inferd, pid)):
            cpu, began = cpu_seconds(process), time.perf_counter()
            await way()
            took += [time.perf_counter() - began, cpu_seconds(process) - cpu]
        rounds.append([one / seconds for one in took])
    return {
        "bare RTF": round(statistics.median(one for one, _, _, _ in rounds), 4),
        "inferd RTF": round(statistics.median(one for _, _, one, _ in rounds), 4),
        "ratio": round(statistics.median(one / other for one, _, other, _ in rounds), 3),
        "CPU ratio": round(statistics.median(one / other for _, one, _, other in rounds), 3),
    }


async def between(client: httpx.AsyncClient) -> dict[str, float]:
    """Seconds that a short clip takes alone, and while five minutes are being heard."""

    async def short() -> float:
        began = time.perf_counter()
        await through(client, clips()[1].content, "en")
        return time.perf_counter() - began

    alone = statistics.median([await short() for _ in range(ROUNDS)])
    long = asyncio.create_task(through(client, joined(LONG_CLIPS)[0], "en"))
    await asyncio.sleep(3)
    beside = [await short() for _ in range(ROUNDS)]
    assert not long.done(), "the long recording was to last longer than the short ones"
    long.cancel()
    return {
        "short clip alone s": round(alone, 2),
        "short clip beside a long one s": round(statistics.median(beside), 2),
        "at worst s": round(max(beside), 2),
    }


async def main() -> None:
    """Measure, print, keep."""
    # As a worker has it; OpenMP reads it when it is loaded, which is later.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    card = local_card(MODEL)
    files = {file.role: str(getattr(file.source, "path", "")) for file in card.files}
    with tempfile.TemporaryDirectory() as runtime, tempfile.TemporaryDirectory() as data:
        bare = Bare(Resources(files, 1, runtime).folder())
        async with serving(Path(data), card) as server, server.client() as client:
            client.timeout = httpx.Timeout(600)
            await through(client, clips()[0].content, "en")
            await asyncio.to_thread(bare.hear, clips()[0].content, "en")
            memory = {"worker after one clip MB": resident_mb(await server.worker_pid(MODEL))}
            rows: list[dict[str, Any]] = [
                {"scenario": name, **await compare(server.pid, *scenario)}
                for name, scenario in scenarios(client, bare).items()
            ]
            told = await between(client)
            memory["worker at the end MB"] = resident_mb(await server.worker_pid(MODEL))
    print("| scenario | bare RTF | inferd RTF | ratio | CPU ratio |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print(json.dumps(told | memory, indent=1))
    about = machine()
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    file = Path(__file__).with_name("results") / f"{day}-{about['cores']}-cores.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": about, "results": rows, **told, **memory}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
