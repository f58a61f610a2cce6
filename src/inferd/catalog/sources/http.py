"""Reads from web servers that hold packages: redirects, credentials, failures in one sentence.

Credentials in the URL of the index go to that origin alone, as a header, and into no text.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError
from pyreqwest.response import Response

_CONNECT_SECONDS_MAX = 20
_READ_SECONDS_MAX = 60
_REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class TransferFailed(Exception):
    """The other side could not be reached, broke off, or said no. The text names no secret."""

    def __init__(self, message: str, *, may_pass: bool = True) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        """Another try may succeed."""


class Site:
    """One origin with its credentials, and whatever it links to."""

    def __init__(
        self, url: str, *, token: str | None = None, subject: str = "package index"
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TransferFailed(
                f"the address of the {subject} is no http or https URL", may_pass=False
            )
        self._token = token
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._origin = (parts.scheme, host)
        self._login = (
            (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        )

    @asynccontextmanager
    async def open(
        self, client: Client, url: str, headers: dict[str, str]
    ) -> AsyncGenerator[tuple[str, Response]]:
        """Yield (final URL, response) with status 200, 206 or 416. TransferFailed otherwise."""
        for _ in range(_REDIRECTS_MAX + 1):
            async with self._request(client, url, headers) as response:
                if response.status in _REDIRECTS:
                    url = urljoin(url, response.get_header("location") or "")
                    continue
                if response.status not in (200, 206, 416):
                    raise TransferFailed(
                        f"{place(url)} answered with status {response.status}",
                        may_pass=response.status >= 500 or response.status == 429,
                    )
                yield url, response
                return
        raise TransferFailed(f"{place(url)} redirects without end", may_pass=False)

    @asynccontextmanager
    async def _request(
        self, client: Client, url: str, headers: dict[str, str]
    ) -> AsyncGenerator[Response]:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise TransferFailed("a link leads to something else than http", may_pass=False)
        try:
            request = client.get(url).headers(headers)
            if self._login and (parts.scheme, parts.netloc) == self._origin:
                request = request.basic_auth(*self._login)
            elif self._token and (parts.scheme, parts.netloc) == self._origin:
                request = request.bearer_auth(self._token)
            async with request.build_streamed() as response:
                yield response
        except PyreqwestError as error:
            raise TransferFailed(f"{place(url)}: {_cause(error)}") from error


def new_client() -> Client:
    """A client that trusts the system's certificates and uses its proxies.

    No compression: a file must come as it is stored, or its range means something else.
    """
    return (
        ClientBuilder()
        .user_agent("inferd")
        .connect_timeout(timedelta(seconds=_CONNECT_SECONDS_MAX))
        .read_timeout(timedelta(seconds=_READ_SECONDS_MAX))
        .follow_redirects(enable=False)
        .gzip(enable=False)
        .brotli(enable=False)
        .zstd(enable=False)
        .deflate(enable=False)
        .build()
    )


def place(url: str) -> str:
    """The host of a URL: all of it that may be shown."""
    return urlsplit(url).hostname or "an address without a host"


def _cause(error: PyreqwestError) -> str:
    """The innermost reason, which names the failure and not the URL."""
    causes = error.details.get("causes") if isinstance(error, DetailedPyreqwestError) else None
    text = causes[-1]["message"] if causes else type(error).__name__
    return text[:200]
