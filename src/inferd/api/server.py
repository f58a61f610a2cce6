"""Runs the application on uvicorn until it is told to stop, then drains."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable

import uvicorn

from inferd.api.app import Application
from inferd.api.protocol import PatientProtocol
from inferd.api.tls import Tls
from inferd.errors import Unavailable

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s of common load balancers, so that they close first."""


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises Unavailable if it cannot be had.

    `shared`: other sockets of ours may have the same address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        sentence = f"Cannot listen on {host} port {port}: {error.strerror}."
        raise Unavailable(sentence) from error
    listener.settimeout(0)
    return listener


def listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """A listening socket of one address for each of several processes. Raises Unavailable.

    The kernel deals new connections out evenly. They wait in their socket while its process is
    started again, so whoever starts it keeps the socket.
    """
    first = listen(host, port)
    if not sys.platform.startswith("linux"):
        # Elsewhere one socket gets all: let all processes accept from that one.
        return [first, *(first.dup() for _ in range(count - 1))]
    # The first one has shown that nobody else is there, whom sharing the port would hide.
    port = first.getsockname()[1]
    first.close()
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(listen(host, port, shared=True))
    except Unavailable:
        for listener in made:
            listener.close()
        raise
    return made


class OwnServer(uvicorn.Server):
    """uvicorn without its own signal handling: draining is ours."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until `should_exit`. Unlike `serve` it leaves the signals alone."""
        await self._serve([listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.up.set()


def protocol_server(app: Application, tls: Tls | None = None) -> OwnServer:
    """A server of our protocol, not started yet."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=2,
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else str(tls.key),
    )
    return OwnServer(config)


async def serve(
    app: Application,
    listener: socket.socket,
    *,
    on_started: Callable[[], None],
    drain: Callable[[], Awaitable[None]],
    tls: Tls | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then await `drain` while running answers finish.

    While draining, new calls are still answered (with what `drain` made of them: 503). A second
    signal stops at once.
    """
    server = protocol_server(app, tls)
    stop, hurry = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run_on(listener))
        await server.up.wait()
        await app.begin()
        on_started()
        await stop.wait()
        await _first(group, drain(), hurry.wait())
        server.should_exit = True
        server.force_exit = hurry.is_set()


async def _first(group: asyncio.TaskGroup, *waits: Awaitable[object]) -> None:
    tasks = [group.create_task(_void(wait)) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def _void(wait: Awaitable[object]) -> None:
    await wait
