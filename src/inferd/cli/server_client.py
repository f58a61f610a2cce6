"""Calls the server that runs on this machine. Loopback only, so the standard library is enough."""

from __future__ import annotations

import hmac
import http.client
import ssl
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from inferd.cli.data_dir import ServerFile
from inferd.errors import InferdError, NotFound, Unavailable

_CHUNK_BYTES = 64 * 1024


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
        for line in _whole(iter(self._send("POST", path, body))):
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            event = msgspec.json.decode(line[6:])
            if "error" in event:
                raise InferdError(event["error"]["message"])
            yield event

    def chunks(self, path: str, body: object) -> Iterator[bytes]:
        """The bytes of an answer as they come."""
        response = self._send("POST", path, body)
        return _whole(iter(lambda: response.read1(_CHUNK_BYTES), b""))

    def _send(self, method: str, path: str, body: object) -> http.client.HTTPResponse:
        parts = urlsplit(self._server.url)
        host = parts.hostname or "127.0.0.1"
        if self._server.certificate_sha256:
            connection = _PinnedConnection(host, parts.port, self._server.certificate_sha256)
        else:
            connection = http.client.HTTPConnection(host, parts.port)
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


def _whole(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same; a sentence where the server hangs up in the middle."""
    try:
        yield from pieces
    except (http.client.HTTPException, OSError) as error:
        raise Unavailable("The server broke off its answer.") from error


class _PinnedConnection(http.client.HTTPSConnection):
    """TLS to the one certificate that the server file names, whatever name is in it."""

    def __init__(self, host: str, port: int | None, certificate_sha256: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The certificate is compared itself, which says more than its name and issuer.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        super().__init__(host, port, context=context)
        self._expected = certificate_sha256

    def connect(self) -> None:
        """Connect, and compare before anything is sent."""
        super().connect()
        shown = cast("ssl.SSLSocket", self.sock).getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(sha256(shown).hexdigest(), self._expected):
            self.close()
            raise Unavailable("Somebody else answers at the address of the server.")


def _error(response: http.client.HTTPResponse) -> InferdError:
    kind = NotFound if response.status == 404 else InferdError
    sentence = refusal_sentence(response.read())
    return kind(sentence or f"The server answered {response.status}.")


def refusal_sentence(body: bytes) -> str:
    """The message of an error body in either dialect; "" if there is none."""
    try:
        told: Any = msgspec.json.decode(body)
        inner: Any = told.get("error") or told.get("detail")
    except (msgspec.DecodeError, AttributeError):
        return ""
    if isinstance(inner, list):
        return " ".join(_field_sentence(one) for one in cast("list[Any]", inner))
    if isinstance(inner, dict):
        fields = cast("dict[str, Any]", inner)
        inner = fields.get("message") or fields.get("error")
    return str(inner or "")


def _field_sentence(one: Any) -> str:
    """Of a field that is wrong: which, and why."""
    if not isinstance(one, dict):
        return str(one)
    fields = cast("dict[str, Any]", one)
    path = ".".join(str(step) for step in fields.get("loc", ())[1:])
    message = str(fields.get("msg", ""))
    return f"{path}: {message}" if path else message
