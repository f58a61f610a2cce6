"""One gateway of several: `python -m inferd.cli.gateway FD FD`, started by the supervisor.

The first FD is one end of a socket pair to the supervisor, who says the settings over it; the
second one listens. When the supervisor is gone the replicas are, so the gateway ends too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import msgspec

from inferd.api.app import build
from inferd.api.server import serve as serve_http
from inferd.catalog.progress import FetchProgress
from inferd.cli.gateways import Seat
from inferd.cli.starting import first_start, set_up_logs, tls_of
from inferd.cli.wiring import rooms, run_async
from inferd.clock import SystemClock
from inferd.errors import InferdError
from inferd.serving.cluster_wire import Boot, Broken, Up
from inferd.serving.memory import give_large_blocks_their_own_place, keep_what_is_loaded
from inferd.serving.remote_router import RemoteRouter
from inferd.settings import Settings

ORPHAN_SECONDS_MAX = 15.0
"""What a gateway whose supervisor is gone may take to settle and end."""


async def main(control: int, listening: int) -> None:
    """Serve until SIGTERM, or until the supervisor is gone."""
    router = RemoteRouter(SystemClock(), on_lost=_end)
    loop = asyncio.get_running_loop()
    sock = socket.socket(fileno=control)
    await loop.create_unix_connection(lambda: router.port, sock=sock)
    boot = await router.booted
    try:
        await _serve(router, boot, socket.socket(fileno=listening))
    except InferdError as error:
        router.say(Broken(error.message))
        sys.exit(1)


async def _serve(router: RemoteRouter, boot: Boot, listener: socket.socket) -> None:
    settings = msgspec.msgpack.decode(boot.settings, type=Settings)
    set_up_logs(settings)
    seat = Seat(boot.index, router)
    async with rooms(settings, _nobody_looks, seat) as services:
        _, secret, password = await first_start(services, settings, boot.local_secret)
        router.count_with(services.metrics.render_own)

        def started() -> None:
            give_large_blocks_their_own_place()
            keep_what_is_loaded()
            router.say(Up(secret, password))

        async def drain() -> None:
            await router.drain(settings.drain_seconds)

        try:
            await serve_http(
                build(services),
                listener,
                on_started=started,
                drain=drain,
                tls=tls_of(settings),
            )
        except* asyncio.CancelledError:
            pass
        except* InferdError as group:
            raise group.exceptions[0] from None


def _nobody_looks(_: FetchProgress) -> None:
    """The supervisor fetches, and shows it."""


def _end() -> None:
    # Twice: nothing that runs can go on.
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    # Whatever hangs meanwhile, a gateway without its supervisor does not stay.
    asyncio.get_running_loop().call_later(ORPHAN_SECONDS_MAX, os._exit, 1)


if __name__ == "__main__":
    run_async(main(*map(int, sys.argv[1:])))
