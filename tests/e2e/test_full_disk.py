"""A full disk: what runs is recorded, nothing new is served, and it mends itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.gateway import echo_card
from tests.process import InferdProcess, serving

DISK = "24m"
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 2}
REQUESTS_MAX = 4000


@contextmanager
def small_disk(folder: Path) -> Generator[Path]:
    """A file system of its own, of a few megabytes."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no free byte."""
    ballast = folder / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while os.write(descriptor, b"x" * size):
                    pass
            except OSError:
                continue
    finally:
        os.close(descriptor)
    return ballast


async def until_refused(client: httpx.AsyncClient) -> tuple[int, httpx.Response]:
    """Ask until the answer is no: how many were answered, and the refusal."""
    for served in range(REQUESTS_MAX):
        answer = await client.post("/v1/chat/completions", json=BODY)
        if answer.status_code != 200:
            return served, answer
    raise AssertionError("the disk never was full")


async def until_healthy(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while (await client.get("/health")).status_code != 200:
            await asyncio.sleep(0.1)


async def lines(answer: httpx.Response) -> AsyncIterator[str]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield line


def succeeded(server: InferdProcess) -> int:
    return sum(entry.status == "succeeded" for entry in server.entries())


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


async def test_nothing_is_free_and_it_mends_itself(disk: Path) -> None:
    async with serving(disk, echo_card()) as server, server.client() as client:
        assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200
        ballast = fill(disk)
        served, refused = await until_refused(client)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.get("/health")).status_code == 503
        for _ in range(20):
            assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 503
        ballast.unlink()
        await until_healthy(client)
        assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200
        verified = (await client.post("/v1/usage/verify", json={})).json()
        assert verified["differences"] == []
        assert succeeded(server) == served + 2


async def test_a_stream_that_runs_when_the_disk_fills_is_recorded(disk: Path) -> None:
    slow = echo_card(tags=("echo:token_ms=20",))
    body = {
        **BODY,
        "messages": [{"role": "user", "content": "word " * 60}],
        "max_tokens": 100,
        "stream": True,
    }
    async with serving(disk, slow) as server, server.client() as client:
        await client.post("/v1/chat/completions", json=BODY)
        before = len(server.entries())
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            told = lines(answer)
            await anext(told)
            ballast = fill(disk)
            rest = [line async for line in told]
        assert rest[-1] == "data: [DONE]"
        ballast.unlink()
        await until_healthy(client)
        async with asyncio.timeout(20):
            while len(server.entries()) <= before:
                await asyncio.sleep(0.05)
        assert server.entries()[-1].status == "succeeded"


async def test_a_server_that_starts_on_a_full_disk_serves_nothing(disk: Path) -> None:
    server = InferdProcess(disk)
    server.add_card(echo_card())
    await server.start()
    await server.stop()
    (disk / "ledger.reserve").unlink()
    ballast = fill(disk)
    try:
        await server.start()
    except AssertionError:
        # Without room for SQLite's own files it does not start; afterwards it does.
        assert "Traceback" not in server.stderr()
        ballast.unlink()
        await server.start()
    try:
        if ballast.exists():
            async with server.client() as client:
                assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 503
            ballast.unlink()
        async with server.client() as client:
            await until_healthy(client)
            assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200
    finally:
        await server.stop()
