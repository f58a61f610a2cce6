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
from inferd.errors import EngineFailed, InferdError
from inferd.serving.inbox import Inbox
from inferd.serving.replica import Flight, ReplicaDied, ReplicaFacts
from inferd.serving.wire import (
    Cancel,
    Close,
    Credit,
    Events,
    FromWorker,
    Load,
    Loaded,
    LoadFailed,
    Port,
    Run,
    ToWorker,
    error_of,
)
from inferd.tasks.base import Chunk, Counted, Progress, Stopped
from inferd.tasks.every import ENDINGS, Event
from inferd.tasks.speech_recognition import Segment
from inferd.tasks.text_generation import Done, Started, Text

STOP_SECONDS_MAX = 3.0
"""Grace for a worker that was asked to exit."""
CANCEL_SECONDS_MAX = 10.0
"""A worker that has not stopped a request by then hangs, and is killed."""

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


class LocalReplica:
    """Fetches, spawns, loads, runs, stops."""

    def __init__(self, card: ModelCard, fetch: Fetch, options: LocalOptions) -> None:
        self._died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._loaded: asyncio.Future[Features] = asyncio.get_running_loop().create_future()
        self._card = card
        self._fetch = fetch
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._port: Port | None = None
        self._inboxes: dict[str, Inbox] = {}
        self._starting: asyncio.Task[ReplicaFacts] | None = None
        self._stopping = False
        self._private_dir: Path | None = None
        self._progress = f"Waiting to load {card.name}"

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
        self._send(Load(self._card, resources))
        features = await self._answer_to_load()
        assert self._process is not None, "spawned above"
        return ReplicaFacts(
            slots=features.slots,
            context_length=features.context_length,
            memory_bytes=await asyncio.to_thread(resident_bytes, self._process.pid),
            pid=self._process.pid,
        )

    async def _answer_to_load(self) -> Features:
        try:
            return await asyncio.wait_for(self._loaded, LOAD_SECONDS_MAX)
        except TimeoutError:
            raise EngineFailed(f"Loading took more than {LOAD_SECONDS_MAX:g} s.") from None

    def _report(self, progress: FetchProgress) -> None:
        self._progress = progress.sentence()

    async def _spawn(self) -> None:
        options = self._options
        self._private_dir = Path(tempfile.mkdtemp(prefix="w", dir=options.runtime_dir))
        ours, theirs = socket.socketpair()
        log_name = self._card.name.replace("/", "--") + ".log"
        try:
            with (options.log_dir / log_name).open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "inferd.serving.worker",
                    str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
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
        ours.setblocking(False)  # noqa: FBT003 the standard library's signature
        port = Port(FromWorker, self._on_message, self._on_lost)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: port, sock=ours)
        self._port = port

    async def run(self, request_id: str, request: Request, flight: Flight) -> AsyncGenerator[Event]:
        """Compute; closing the generator cancels and waits for the final usage."""
        if self._died.done() or self._stopping:
            raise ReplicaDied("The worker that served this request ended.")
        self._send(Run(request_id, request))
        # Nothing is read between these lines: the worker's first word finds its inbox.
        inbox = self._inboxes[request_id] = Inbox(
            lambda size_bytes: self._send(Credit(request_id, size_bytes))
        )
        ended = False
        try:
            while not ended:
                event = await inbox.take()
                ended = _note(event, flight)
                if isinstance(event, InferdError):
                    raise event
                yield event
        finally:
            if not ended:
                await self._cancel(request_id, inbox, flight)
            del self._inboxes[request_id]

    async def _cancel(self, request_id: str, inbox: Inbox, flight: Flight) -> None:
        self._send(Cancel(request_id))
        try:
            async with asyncio.timeout(CANCEL_SECONDS_MAX):
                while not _note(await inbox.take(), flight):
                    pass
        except TimeoutError:
            self._kill()

    async def stop(self) -> None:
        """Ask the process to exit, insist after a grace period, clean up."""
        self._stopping = True
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait([self._starting])
        self._send(Close())
        await self._end_process()

    async def _end_process(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            if not self._stopping:
                self._kill()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
            except TimeoutError:
                self._kill()
                await process.wait()
        if self._port is not None:
            self._port.close()
        if self._private_dir is not None:
            shutil.rmtree(self._private_dir, ignore_errors=True)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _send(self, message: ToWorker) -> None:
        if self._port is not None:
            self._port.send(message)

    def _on_message(self, message: ToWorker | FromWorker) -> None:
        match message:
            case Events(items):
                for request_id, event in items:
                    if inbox := self._inboxes.get(request_id):
                        inbox.put(event)
            case Loaded(features):
                self._loaded.set_result(features)
            case LoadFailed(failure):
                self._loaded.set_exception(error_of(failure))
            case _:
                raise AssertionError("the decoder lets nothing else through")

    def _on_lost(self) -> None:
        # First the router, then the requests: one that is tried again must not come back here.
        if not self._stopping and not self._died.done():
            self._died.set_result("The worker process ended.")
        error = ReplicaDied("The worker that served this request ended unexpectedly.")
        for inbox in self._inboxes.values():
            inbox.put(error)
        if not self._loaded.done():
            self._loaded.set_exception(EngineFailed("The worker ended while it loaded the model."))
            self._loaded.exception()


def _note(event: Event | InferdError, flight: Flight) -> bool:
    """Keep the flight true; True if this was the last event."""
    match event:
        case Text() | Chunk() | Segment():
            flight.stage, flight.usage = "decode", event.usage
        case Progress():
            flight.usage = event.usage
        case Started() | Counted():
            flight.stage = "prefill"
        case Stopped() | Done():
            flight.usage = event.usage
            if event.usage.output_tokens:
                flight.stage = "decode"
            return True
        case _ if isinstance(event, ENDINGS):
            flight.usage = event.usage
            return True
        case _:
            return True
    return False


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
