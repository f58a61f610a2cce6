"""Calls the server that runs on this machine. Loopback only, so the standard library is enough."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from inferd.cli.data_dir import ServerFile
from inferd.errors import InferdError, NotFound, Unavailable


class ServerClient:
    """JSON calls with the local admin credential."""

    def __init__(self, server: ServerFile) -> None:
        self._server = server

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The decoded answer. Raises InferdError with the server's own sentence."""
        response = self._send(method, path, body)
        return msgspec.json.decode(response.read())

    def events(self, path: str, body: object) -> Iterator[Any]:
        """The JSON events of a stream."""
        response = self._send("POST", path, body)
        for line in response:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            event = msgspec.json.decode(line[6:])
            if "error" in event:
                raise InferdError(event["error"]["message"])
            yield event

    def _send(self, method: str, path: str, body: object) -> http.client.HTTPResponse:
        parts = urlsplit(self._server.url)
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port)
        headers = {"authorization": f"Bearer {self._server.token}"}
        payload = None if body is None else msgspec.json.encode(body)
        try:
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
        except OSError as error:
            raise Unavailable(f"The server does not answer: {error}.") from error
        if response.status >= 400:
            raise _error(response)
        return response


def _error(response: http.client.HTTPResponse) -> InferdError:
    kind = NotFound if response.status == 404 else InferdError
    sentence = refusal_sentence(response.read())
    return kind(sentence or f"The server answered {response.status}.")


def refusal_sentence(body: bytes) -> str:
    """The message of an error body in either dialect; "" if there is none."""
    try:
        told: Any = msgspec.json.decode(body)
        inner: Any = told.get("error") or told.get("detail")
        if isinstance(inner, dict):
            fields = cast("dict[str, Any]", inner)
            inner = fields.get("message") or fields.get("error")
    except (msgspec.DecodeError, AttributeError):
        return ""
    return str(inner or "")
