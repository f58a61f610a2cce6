"""The API without a server: the same application, called in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from inferd.api.app import Application, build
from inferd.cli import data_dir, wiring
from inferd.cli.progress import ProgressLines
from inferd.cli.server_client import refusal_sentence
from inferd.errors import InferdError
from inferd.settings import Settings

Chunk = Callable[[bytes], None]


def call(settings: Settings, method: str, path: str, body: object = None) -> Any:
    """One JSON call, with an admin credential of its own. Raises InferdError."""
    received = bytearray()
    _run(settings, (method, path, body), received.extend)
    return msgspec.json.decode(received)


def stream(settings: Settings, path: str, body: object, on_chunk: Chunk) -> None:
    """One streamed POST; `on_chunk` gets the bytes as they come."""
    _run(settings, ("POST", path, body), on_chunk)


def _run(settings: Settings, request: tuple[str, str, object], on_chunk: Chunk) -> None:
    async def act() -> None:
        async with wiring.rooms(settings, ProgressLines().show) as services:
            await services.tokens.ensure_admin(settings.bootstrap_token or None)
            secret = await services.tokens.local_admin()
            await _call_app(build(services), secret, request, on_chunk)

    with data_dir.locked(data_dir.prepare(settings)):
        wiring.run_async(act())


async def _call_app(
    app: Application, secret: str, request: tuple[str, str, object], on_chunk: Chunk
) -> None:
    method, target, body = request
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"authorization", f"Bearer {secret}".encode())],
    }
    exchange = _InProcess(msgspec.json.encode(body), on_chunk)
    await app(scope, exchange.receive, exchange.send)
    exchange.check()


class _InProcess:
    """Both ends of an ASGI exchange without a socket."""

    def __init__(self, body: bytes, on_chunk: Chunk) -> None:
        self._body: bytes | None = body
        self._on_chunk = on_chunk
        self._status = 0
        self._ended = False
        self._refusal = bytearray()
        self._never = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._body is None:
            await self._never.wait()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._ended = not message.get("more_body", False)
        if self._status >= 400:
            self._refusal += message.get("body", b"")
        else:
            self._on_chunk(message.get("body", b""))

    def check(self) -> None:
        """Raise what the application refused with."""
        if self._status >= 400:
            raise InferdError(refusal_sentence(bytes(self._refusal)))
        if not self._ended:
            raise InferdError("The answer broke off; the log says why.")
