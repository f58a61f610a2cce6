"""How `inferd run` asks: the server that runs here, or the application in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from inferd.cli.data_dir import running_server
from inferd.cli.server_client import ServerClient
from inferd.errors import InferdError
from inferd.settings import Settings

Show = Callable[[Any], None]


def ask(settings: Settings, path: str, body: Any, show: Show) -> None:
    """`show` gets the answer, decoded."""
    server = running_server(settings)
    if server is not None:
        show(ServerClient(server).call("POST", path, body))
        return
    from inferd.cli import offline

    show(offline.call(settings, "POST", path, body))


def ask_events(settings: Settings, path: str, body: Any, show: Show) -> None:
    """`show` gets one event after another."""
    server = running_server(settings)
    if server is not None:
        for event in ServerClient(server).events(path, body):
            show(event)
        return
    from inferd.cli import offline

    offline.stream(settings, path, body, _Events(show).feed)


def ask_bytes(settings: Settings, path: str, body: Any, show: Callable[[bytes], None]) -> None:
    """`show` gets the bytes as they come."""
    server = running_server(settings)
    if server is not None:
        for chunk in ServerClient(server).chunks(path, body):
            show(chunk)
        return
    from inferd.cli import offline

    offline.stream(settings, path, body, show)


class _Events:
    """Cuts a byte stream into events."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._pending = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                event = msgspec.json.decode(line[6:])
                if "error" in event:
                    raise InferdError(event["error"]["message"])
                self._show(event)
