"""`inferd serve --workers N`: owns the port, the router and the replicas, and keeps N gateways.

    supervisor ── router ── worker processes (a model each)
       │ socket pairs: slots         ▲ Unix sockets: requests, tokens
       └── gateway 0 … N−1 ──────────┘

A gateway that ends is started again under its name, so that it finds its journal and its leases;
the others go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

import msgspec

from inferd.api.server import listeners
from inferd.cli import data_dir
from inferd.cli.progress import ProgressLines
from inferd.cli.replicas import catalog, local_router
from inferd.cli.starting import greet, tls_of, url_of
from inferd.clock import SystemClock
from inferd.errors import Unavailable
from inferd.serving.cluster_wire import Boot, Up
from inferd.serving.memory import budget_bytes, keep_what_is_loaded
from inferd.serving.slot_server import Desk, SlotServer
from inferd.settings import Settings

RESTART_SECONDS_MAX = 5.0
"""Between starts of a gateway that does not stay."""
STABLE_SECONDS = 10.0
"""A gateway that lived so long is not in a crash loop."""
STOP_SECONDS_MAX = 10.0
"""Beyond the drain, for what is left to settle; then a gateway is killed."""

_log = logging.getLogger("inferd.supervisor")


class Crew:
    """The gateways: started, kept, stopped."""

    def __init__(self, settings: Settings, sockets: list[socket.socket], slots: SlotServer) -> None:
        self.local_secret = f"ifd_local_{secrets.token_urlsafe(32)}"
        self._settings = settings
        self._sockets = sockets
        self._slots = slots
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> Up:
        """Start all; what the first one said. Raises Unavailable with the sentence of one."""
        # The first one alone: it migrates and makes the admin, and the others find both.
        first = await self._begin(0)
        await asyncio.gather(*(self._begin(index) for index in range(1, len(self._sockets))))
        return first

    def signal(self, number: signal.Signals) -> None:
        """Tell all of them."""
        self._stopping = True
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)

    async def ended(self) -> None:
        """Wait until all have ended after `signal`."""
        while self._keeping:
            await asyncio.wait(self._keeping)

    async def kill(self) -> None:
        """End whoever is left."""
        self.signal(signal.SIGKILL)
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        for process in self._processes.values():
            await process.wait()

    async def _begin(self, index: int) -> Up:
        desk = await self._spawn(index)
        await desk.began.wait()
        if desk.up is None:
            raise Unavailable(desk.broken or f"Gateway {index} ended while it started.")
        # Held here until the gateway has ended for good.
        keeping = asyncio.get_running_loop().create_task(self._keep(index))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        return desk.up

    async def _keep(self, index: int) -> None:
        """Start the gateway again whenever it ends."""
        loop, pause = asyncio.get_running_loop(), 0.0
        while True:
            began = loop.time()
            code = await self._processes[index].wait()
            if self._stopping:
                return
            pause = (
                0.0
                if loop.time() - began > STABLE_SECONDS
                else min(pause * 2 or 0.1, RESTART_SECONDS_MAX)
            )
            _log.error("gateway %d ended with %d and is started again", index, code)
            await asyncio.sleep(pause)
            if not self._stopping:
                await self._spawn(index)

    async def _spawn(self, index: int) -> Desk:
        ours, theirs = socket.socketpair()
        listener = self._sockets[index]
        inherited = (theirs.fileno(), listener.fileno())
        try:
            self._processes[index] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "inferd.cli.gateway",
                *map(str, inherited),
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Its own session: Ctrl-C at the terminal is for the supervisor alone.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        desk = self._slots.open(index, self._processes[index].pid)
        ours.setblocking(False)  # noqa: FBT003 the standard library's signature
        await asyncio.get_running_loop().create_unix_connection(lambda: desk.port, sock=ours)
        desk.port.send(
            Boot(
                index=index,
                settings=msgspec.msgpack.encode(self._settings),
                local_secret=self.local_secret,
                memory_bytes=self._settings.memory_bytes or budget_bytes(),
            )
        )
        return desk


async def supervise(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; a second one stops at once. The lock is held."""
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
    shutil.rmtree(settings.data_path / "media", ignore_errors=True)
    runtime = Path(tempfile.mkdtemp(prefix="inferd-", dir=settings.runtime_path()))
    router = local_router(settings, SystemClock(), runtime, ProgressLines().show, shared=True)
    slots = SlotServer(router, catalog(settings))
    sockets = listeners(settings.host, settings.port, settings.workers)
    crew = Crew(settings, sockets, slots)
    try:
        up = await _unless(stop, crew.start())
        if up is not None:
            slots.own(slots.tell_progress())
            keep_what_is_loaded()
            _announce(settings, sockets[0], crew.local_secret, up)
            await stop.wait()
            await _drained(settings, crew, hurry)
    finally:
        await crew.kill()
        await slots.close()
        await router.close()
        for listener in sockets:
            listener.close()
        shutil.rmtree(runtime, ignore_errors=True)


async def _unless(stop: asyncio.Event, starting: Coroutine[None, None, Up]) -> Up | None:
    """What the start gives; None if it was stopped first."""
    start, stopped = asyncio.ensure_future(starting), asyncio.ensure_future(stop.wait())
    await asyncio.wait([start, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if start.done():
        return start.result()
    start.cancel()
    await asyncio.wait([start])
    return None


def _announce(settings: Settings, listener: socket.socket, local: str, up: Up) -> None:
    tls = tls_of(settings)
    url = url_of(settings.host, listener.getsockname()[1], "https" if tls else "http")
    shown = tls.fingerprint() if tls else ""
    served = data_dir.ServerFile(url, local, os.getpid(), shown)
    data_dir.write_server_file(settings.data_path, served)
    greet(url, up.admin_secret, up.admin_password)


async def _drained(settings: Settings, crew: Crew, hurry: asyncio.Event) -> None:
    sys.stderr.write("Draining: running answers may finish; Ctrl-C again stops at once.\n")
    crew.signal(signal.SIGTERM)
    ended = asyncio.ensure_future(crew.ended())
    hurried = asyncio.ensure_future(hurry.wait())
    patience = settings.drain_seconds + STOP_SECONDS_MAX
    await asyncio.wait([ended, hurried], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        crew.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await ended
    hurried.cancel()
