"""The connection to Valkey: whoever waits for a server that falls silent is told so."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

import pytest

from inferd.errors import Unavailable
from inferd.storage.valkey import Valkey
from tests.servers import ValkeyServer


class _Deaf(Valkey):
    """Its sender loses a cancellation, as code below a library may."""

    async def _send(self) -> None:
        with suppress(asyncio.CancelledError):
            await super()._send()
        await super()._send()


@pytest.mark.parametrize("kind", [Valkey, _Deaf])
async def test_a_silent_server_fails_what_waits_and_is_used_again_when_it_speaks(
    kind: type[Valkey],
) -> None:
    server = ValkeyServer()
    server.start()
    connection = kind(server.url, "return 1")
    try:
        await connection.open()
        assert await connection.run([]) == 1
        os.kill(server.pid, signal.SIGSTOP)
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable):
                await connection.run([])
        assert not connection.is_up
        os.kill(server.pid, signal.SIGCONT)
        async with asyncio.timeout(10):
            while not connection.is_up:
                await asyncio.sleep(0.01)
            assert await connection.run([]) == 1
            await connection.close()
    finally:
        server.close()
