"""Sees how an answer comes: in which pieces, and whether the loop came round between them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tests.gateway import Client, Response


class Sliced:
    """A client of one call."""

    def __init__(self, client: Client, *, reads: int | None = None) -> None:
        self.sizes: list[int] = []
        """Bytes of each piece."""
        self.turns: list[int] = []
        """How often the loop had come round when each piece came."""
        self._client = client
        self._reads = reads
        """How many pieces are read; None: all."""
        self._turn = 0

    async def post(self, path: str, body: Any) -> Response:
        """POST JSON."""
        whole, status = bytearray(), 0
        request = [{"type": "http.request", "body": msgspec.json.encode(body), "more_body": False}]
        ended = asyncio.Event()

        async def receive() -> Any:
            if request:
                return request.pop()
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif piece := message["body"]:
                if len(self.sizes) == self._reads:
                    await ended.wait()
                whole.extend(piece)
                self.sizes.append(len(piece))
                self.turns.append(self._turn)

        turning = asyncio.create_task(self._turns())
        try:
            await self._client.app(self._scope(path), receive, send)
        finally:
            turning.cancel()
            ended.set()
        return Response(status, {}, bytes(whole))

    def _scope(self, path: str) -> dict[str, Any]:
        return {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "client": None,
            "headers": [(b"authorization", f"Bearer {self._client.token}".encode())],
        }

    async def _turns(self) -> None:
        while True:
            self._turn += 1
            await asyncio.sleep(0)
