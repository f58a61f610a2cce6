"""Talks to OpenID Connect providers: two kinds of request, small answers, no redirects.

Authlib's own clients come with requests or httpx; its core needs neither, and the client that the
rest of inferd uses carries these three calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.request import RequestBuilder

from inferd.errors import UpstreamFailed

ANSWER_BYTES_MAX = 1 << 20
SECONDS_MAX = 10

# Documents of OpenID Connect are open by nature.
Document = dict[str, Any]


class ProviderHttp:
    """One provider's web server."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def get(self, url: str, *, bearer: str | None = None) -> Document:
        """A JSON document. Raises UpstreamFailed."""
        async with _new_client() as client:
            request = client.get(url)
            return await self._send(request.bearer_auth(bearer) if bearer else request)

    async def post(
        self, url: str, form: Mapping[str, str], *, login: tuple[str, str] | None
    ) -> Document:
        """The JSON answer to a form; `login` goes into a Basic header. Raises UpstreamFailed."""
        async with _new_client() as client:
            request = client.post(url).form(dict(form))
            return await self._send(request.basic_auth(*login) if login else request)

    async def _send(self, request: RequestBuilder) -> Document:
        try:
            async with request.header("accept", "application/json").build_streamed() as response:
                content = bytearray()
                while chunk := await response.body_reader.read_chunk():
                    content += chunk
                    if len(content) > ANSWER_BYTES_MAX:
                        raise self._failed("its answer is too long")
                status = response.status
        except PyreqwestError as error:
            raise self._failed(type(error).__name__) from None
        if status != 200:
            raise self._failed(f"status {status}: {_code(bytes(content))}")
        try:
            document = msgspec.json.decode(content)
        except msgspec.DecodeError:
            raise self._failed("its answer is no JSON") from None
        if not isinstance(document, dict):
            raise self._failed("its answer is no JSON object")
        return cast("Document", document)

    def _failed(self, why: str) -> UpstreamFailed:
        sentence = f"The sign-in provider {self._name} does not answer as it should."
        return UpstreamFailed(sentence, detail=why)


def _code(content: bytes) -> str:
    """OAuth's error code, which holds no secret; "" if there is none."""
    try:
        told = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return ""
    code = cast("Document", told).get("error") if isinstance(told, dict) else None
    return code[:50] if isinstance(code, str) else ""


def is_safe(url: object) -> bool:
    """True for https, and for http on this machine."""
    if not isinstance(url, str):
        return False
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")


def _new_client() -> Client:
    return (
        ClientBuilder()
        .user_agent("inferd")
        .timeout(timedelta(seconds=SECONDS_MAX))
        .follow_redirects(enable=False)
        .build()
    )
