"""A real `inferd serve`, as a child process over a temporary data directory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec

from inferd.catalog.card import ModelCard
from inferd.storage.rows import EntryRow
from tests.ledger import entries_in

TOKEN = "bootstrap-token-of-the-process-tests-01"
START_SECONDS_MAX = 30


class InferdProcess:
    """One data directory and the server over it, which may be started and killed many times."""

    def __init__(self, data_dir: Path, **settings: object) -> None:
        self.data_dir = data_dir
        self.url = ""
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._rest: asyncio.Task[bytes] | None = None

    def add_card(self, card: ModelCard) -> None:
        """Put a user's card into the catalogue of the next start."""
        folder = self.data_dir / "cards"
        folder.mkdir(parents=True, exist_ok=True)
        text = msgspec.toml.encode(without_none(msgspec.to_builtins(card)))
        (folder / f"{card.name.replace('/', '--')}.toml").write_bytes(text)

    async def start(self) -> None:
        """Start, and wait until its first line says that it listens. Else AssertionError."""
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "INFERD_DATA_DIR": str(self.data_dir),
            "INFERD_PORT": "0",
            "INFERD_BOOTSTRAP_TOKEN": TOKEN,
            **{f"INFERD_{name.upper()}": str(value) for name, value in self._settings.items()},
        }
        with (self.data_dir / "stderr.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "inferd.cli",
                "serve",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        output = self._process.stdout
        assert output is not None
        line = await asyncio.wait_for(output.readline(), START_SECONDS_MAX)
        # Read to the end, so that the server never waits for us; awaited with the process.
        self._rest = asyncio.create_task(output.read())
        if b"serves on" not in line:
            await self.wait()
            raise AssertionError(self.stderr())
        self.url = line.split()[-1].decode()

    @property
    def pid(self) -> int:
        """The gateway's process."""
        assert self._process is not None
        return self._process.pid

    def client(self, **options: Any) -> httpx.AsyncClient:
        """An HTTP client with the admin's token."""
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, **options)

    async def kill(self) -> None:
        """kill -9, and reap."""
        assert self._process is not None
        self._process.kill()
        await self.wait()

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    async def wait(self, seconds: float = 30) -> int:
        """Its exit code."""
        assert self._process is not None
        assert self._rest is not None
        async with asyncio.timeout(seconds):
            await self._rest
            return await self._process.wait()

    async def stop(self) -> None:
        """Ctrl-C and wait; kill if it hangs."""
        if self._process is None or self._process.returncode is not None:
            return
        self.interrupt()
        try:
            await self.wait()
        except TimeoutError:
            await self.kill()
            raise

    def entries(self) -> list[EntryRow]:
        """The ledger's rows."""
        return entries_in(self.data_dir / "inferd.db")

    def stderr(self) -> str:
        """What it logged."""
        return (self.data_dir / "stderr.log").read_text()

    async def cli(self, *arguments: str, cwd: Path | None = None) -> tuple[int, str]:
        """Run a command over the same data directory: (exit code, output)."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "inferd.cli",
            *arguments,
            "--data-dir",
            str(self.data_dir),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, output.decode()

    async def worker_pids(self) -> dict[str, int]:
        """The process of each loaded model."""
        async with self.client() as client:
            models = (await client.get("/v1/status")).json()["models"]
        return {m["model"]: m["pid"] for m in models if m["pid"] is not None}

    async def worker_pid(self, model: str) -> int:
        """The process of one loaded model. AssertionError if it is not loaded now."""
        pids = await self.worker_pids()
        assert model in pids, f"{model} is not loaded"
        return pids[model]


def without_none(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {k: without_none(v) for k, v in fields.items() if v is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in cast("list[Any]", value)]
    return value


@asynccontextmanager
async def serving(
    data_dir: Path, *cards: ModelCard, **settings: object
) -> AsyncGenerator[InferdProcess]:
    """A running server; stopped with Ctrl-C at the end."""
    server = InferdProcess(data_dir, **settings)
    for card in cards:
        server.add_card(card)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
