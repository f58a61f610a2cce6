"""A replica in a child process of this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import msgspec

from inferd.catalog.card import ModelCard
from inferd.catalog.progress import FetchProgress
from inferd.engines.base import Features, Request, Resources
from inferd.errors import EngineFailed
from inferd.serving.link import Link
from inferd.serving.replica import Flight, ReplicaDied, ReplicaFacts
from inferd.serving.wire import Close, Load, Loaded, LoadFailed, error_of
from inferd.tasks.every import Event

STOP_SECONDS_MAX = 3.0
"""Grace for a worker that was asked to exit."""
SOCKET_NAME = "g"
"""Short: it ends a path."""
LOAD_SECONDS_MAX = 900.0
"""From the start of the process to its first word: 100 GB of weights from a slow disk."""

Fetch = Callable[[ModelCard, Callable[[FetchProgress], None]], Awaitable[dict[str, Path]]]


class LocalOptions(msgspec.Struct, frozen=True):
    """What every child of this machine gets."""

    threads: int
    log_dir: Path
    runtime_dir: Path
    """Short and private: sockets have paths of at most 108 bytes."""
    environment: dict[str, str]
    """All of it; nothing is inherited."""
    shared: bool = False
    """Workers listen for several gateways, on a socket in the private directory."""


class LocalReplica:
    """Fetches, spawns, loads, runs, stops."""

    def __init__(self, card: ModelCard, fetch: Fetch, options: LocalOptions) -> None:
        self._died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._loaded: asyncio.Future[Features] = asyncio.get_running_loop().create_future()
        self._card = card
        self._fetch = fetch
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._link: Link | None = None
        self._starting: asyncio.Task[ReplicaFacts] | None = None
        self._stopping = False
        self._private_dir: Path | None = None
        self._progress = f"Waiting to load {card.name}"

    @property
    def address(self) -> str | None:
        """The Unix socket on which gateways reach a shared worker."""
        if not self._options.shared or self._private_dir is None:
            return None
        return str(self._private_dir / SOCKET_NAME)

    @property
    def died(self) -> asyncio.Future[str]:
        """Resolves when the process ends without having been asked to."""
        return self._died

    def progress(self) -> str:
        """How far `start` is."""
        return self._progress

    async def start(self) -> ReplicaFacts:
        """Fetch the files, start the process, load the model."""
        # Owned and awaited right here; `stop` may cancel it.
        self._starting = asyncio.ensure_future(self._start())
        try:
            return await self._starting
        except BaseException:
            self._starting.cancel()
            await asyncio.wait([self._starting])
            await self._end_process()
            if self._stopping:
                raise EngineFailed("The load was stopped.") from None
            raise

    async def _start(self) -> ReplicaFacts:
        files = await self._fetch(self._card, self._report)
        self._progress = f"Loading {self._card.name}"
        await self._spawn()
        resources = Resources(
            files={role: str(path) for role, path in files.items()},
            threads=self._options.threads,
            runtime_dir=str(self._private_dir),
        )
        assert self._link is not None, "spawned above"
        self._link.send(Load(self._card, resources))
        features = await self._answer_to_load()
        assert self._process is not None, "spawned above"
        return ReplicaFacts(
            slots=features.slots,
            context_length=features.context_length,
            memory_bytes=await asyncio.to_thread(resident_bytes, self._process.pid),
            pid=self._process.pid,
            spare=features.spare,
        )

    async def _answer_to_load(self) -> Features:
        try:
            async with asyncio.timeout(LOAD_SECONDS_MAX):
                return await self._loaded
        except TimeoutError:
            raise EngineFailed(f"Loading took more than {LOAD_SECONDS_MAX:g} s.") from None

    def _report(self, progress: FetchProgress) -> None:
        self._progress = progress.sentence()

    async def _spawn(self) -> None:
        options = self._options
        self._private_dir = Path(tempfile.mkdtemp(prefix="w", dir=options.runtime_dir))
        ours, theirs = socket.socketpair()
        address = self.address
        listener = None if address is None else _listener(address)
        inherited = [s.fileno() for s in (theirs, listener) if s is not None]
        log_name = self._card.name.replace("/", "--") + ".log"
        try:
            with (options.log_dir / log_name).open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "inferd.serving.worker",
                    *map(str, inherited),
                    pass_fds=inherited,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(options),
                    # Its own session: Ctrl-C at the terminal is for the gateway alone.
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            if listener is not None:
                listener.close()
        ours.setblocking(False)  # noqa: FBT003 the standard library's signature
        link = Link(on_hung=self.kill, on_lost=self._on_lost, on_loaded=self._on_loaded)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: link.port, sock=ours)
        self._link = link

    def run(self, request_id: str, request: Request, flight: Flight) -> AsyncGenerator[Event]:
        """Compute; closing the generator cancels and waits for the final usage."""
        if self._link is None or self._died.done() or self._stopping:
            raise ReplicaDied("The worker that served this request ended.")
        return self._link.run(request_id, request, flight)

    async def stop(self) -> None:
        """Ask the process to exit, insist after a grace period, clean up."""
        self._stopping = True
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._link is not None:
            self._link.send(Close())
        await self._end_process()

    async def _end_process(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            if not self._stopping:
                self.kill()
            try:
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await process.wait()
            except TimeoutError:
                self.kill()
                await process.wait()
        if self._link is not None:
            self._link.port.close()
        if self._private_dir is not None:
            shutil.rmtree(self._private_dir, ignore_errors=True)

    def kill(self) -> None:
        """End the process at once; `died` tells."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _on_loaded(self, answer: Loaded | LoadFailed) -> None:
        if isinstance(answer, Loaded):
            self._loaded.set_result(answer.features)
        else:
            self._loaded.set_exception(error_of(answer.failure))

    def _on_lost(self) -> None:
        if not self._stopping and not self._died.done():
            self._died.set_result("The worker process ended.")
        if not self._loaded.done():
            self._loaded.set_exception(EngineFailed("The worker ended while it loaded the model."))
            self._loaded.exception()


def _listener(address: str) -> socket.socket:
    """The directory is its owner's alone, so nobody else can connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen()
    return listener


def _environment(options: LocalOptions) -> dict[str, str]:
    threads = str(options.threads)
    return {
        **options.environment,
        # Without it OpenMP spins at barriers and a busy machine loses three quarters of its speed.
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if it cannot be told."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if os.path.exists("/proc/self"):
        return 0
    listing = subprocess.run(
        ["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=False, text=True
    )
    return int(listing.stdout.strip() or 0) * 1024
