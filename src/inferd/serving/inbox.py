"""What a worker has sent of one request and its reader has not taken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from inferd.errors import InferdError
from inferd.serving.wire import CREDIT_BYTES, EVENT_BYTES, Failed, Output, Piece, error_of, weight
from inferd.tasks.embeddings import Embedded
from inferd.tasks.every import Event
from inferd.tasks.text_generation import Text


class Inbox:
    """One request's events. At most the window's, since credit is given as they are taken."""

    def __init__(self, credit: Callable[[int], None]) -> None:
        """`credit` tells the worker how many bytes were taken."""
        self._outputs: deque[Event | InferdError] = deque()
        self._filled = asyncio.Event()
        self._pieces: list[bytes] = []
        self._credit = credit
        self._taken_bytes = 0

    def put(self, output: Output | InferdError) -> None:
        """Keep it. Pieces are joined here: nobody can use them before the last."""
        if type(output) is Text:
            event = output
        elif isinstance(output, Piece):
            self._pieces.append(output.data)
            self._take(len(output.data))
            return
        else:
            event = self._whole(output)
        if not self._outputs:
            self._filled.set()
        self._outputs.append(event)

    def _whole(self, output: Event | Failed | InferdError) -> Event | InferdError:
        if isinstance(output, Failed):
            return error_of(output.failure)
        if isinstance(output, Embedded) and self._pieces:
            return msgspec.structs.replace(output, vectors=b"".join(self._pieces))
        return output

    async def take(self) -> Event | InferdError:
        """The next event, or what ended the request."""
        while not self._outputs:
            self._filled.clear()
            await self._filled.wait()
        output = self._outputs.popleft()
        if type(output) is Text or isinstance(output, InferdError):
            self._take(EVENT_BYTES)
        else:
            self._take(weight(output))
        return output

    def _take(self, size_bytes: int) -> None:
        self._taken_bytes += size_bytes
        if self._taken_bytes >= CREDIT_BYTES:
            self._credit(self._taken_bytes)
            self._taken_bytes = 0
