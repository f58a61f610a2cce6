"""One call of the API, wherever it is: the running server, or this process without one."""

from __future__ import annotations

from typing import Any

from inferd.cli import data_dir
from inferd.cli.server_client import ServerClient
from inferd.settings import Settings


def call(settings: Settings, method: str, path: str, body: object = None) -> Any:
    """The decoded answer, with a local admin credential. Raises InferdError with its sentence."""
    server = data_dir.running_server(settings)
    if server is not None:
        return ServerClient(server).call(method, path, body)
    from inferd.cli import offline

    return offline.call(settings, method, path, body)
