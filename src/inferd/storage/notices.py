"""PostgreSQL's notices: a connection that listens, and comes back when it was lost.

Notices are a matter of speed alone: whoever waits for one looks for himself from time to time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from inferd.errors import InferdError
from inferd.storage.postgres import connect

_log = logging.getLogger("inferd.storage")

AGAIN_SECONDS = 1.0
"""Until a lost connection is made again."""


async def listen(url: str, channel: str, heard: Callable[[str], None]) -> None:
    """Call `heard` with the payload of each notice, until cancelled."""
    while True:
        try:
            await _listen_once(url, channel, heard)
        except (InferdError, OSError):
            pass
        except Exception as error:  # noqa: BLE001 whatever the driver raises, it is tried again
            _log.warning("notices of the database were lost: %s", type(error).__name__)
        await asyncio.sleep(AGAIN_SECONDS)


async def _listen_once(url: str, channel: str, heard: Callable[[str], None]) -> None:
    # asyncpg has no types.
    connection: Any = await connect(url)
    lost = asyncio.Event()

    def hang_up(_: Any) -> None:
        lost.set()

    def hear(_connection: Any, _pid: Any, _channel: Any, payload: str) -> None:
        heard(payload)

    connection.add_termination_listener(hang_up)
    try:
        await connection.add_listener(channel, hear)
        await lost.wait()
    finally:
        connection.terminate()
