"""Fetches a URL that a caller named: public addresses only, within caps, nothing followed blindly.

The name is looked up once, every address that it has is checked, and the connection goes to a
checked address: no second lookup that could say something else. Redirects lead to the same host
or nowhere. No proxy, no credential, no cookie, no compression takes part.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urljoin

import httptools

from inferd.access.in_flight_bytes import Holding
from inferd.api.address import Network, Target, parse_url
from inferd.api.checked_connection import connected, unreadable
from inferd.api.services import Services
from inferd.errors import FetchTimedOut, PayloadTooLarge, UrlNotAllowed, UrlUnreadable

REDIRECTS_MAX = 3
HEAD_BYTES_MAX = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_READ_BYTES = 256 * 1024


async def fetch_url(url: str, account_id: str, services: Services, param: str) -> bytes:
    """The bytes behind a URL.

    Raises UrlNotAllowed, UrlUnreadable, FetchTimedOut, PayloadTooLarge, TooManyRequests.
    """
    options = services.options
    target = parse_url(url, param)
    holding = services.bodies.hold(account_id)
    try:
        with services.fetches.one(account_id):
            async with asyncio.timeout(options.media_seconds_max):
                fetch = _Fetch(options.media_bytes_max, options.private_media, holding, param)
                return await fetch.follow(target)
    except TimeoutError:
        raise FetchTimedOut(
            f"{param} could not be fetched within {options.media_seconds_max:g} seconds.",
            param=param,
        ) from None
    finally:
        holding.release()


class _Fetch:
    """One URL, its redirects included."""

    def __init__(
        self, bytes_max: int, networks: tuple[Network, ...], holding: Holding, param: str
    ) -> None:
        self._bytes_max = bytes_max
        self._networks = networks
        self._holding = holding
        self._param = param

    async def follow(self, target: Target) -> bytes:
        """The content, after at most a few redirects on one host."""
        for _ in range(REDIRECTS_MAX + 1):
            reply = await self._get(target)
            if reply.status == 200:
                return bytes(reply.content)
            if reply.status not in _REDIRECTS or not reply.location:
                raise self._unreadable(f"its server answered with status {reply.status}")
            target = self._next(target, reply.location)
        raise self._unreadable("it redirects without end")

    def _next(self, target: Target, location: str) -> Target:
        following = parse_url(urljoin(target.url, location), self._param)
        upgraded = following.secure and following.port == 443
        same = (following.secure, following.port) == (target.secure, target.port)
        if following.host != target.host or not (same or upgraded):
            raise UrlNotAllowed(
                f"{self._param} redirects to another place; give its final URL.", param=self._param
            )
        return following

    async def _get(self, target: Target) -> _Reply:
        request = (
            f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: inferd\r\n"
            "Accept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
        )
        async with connected(target, self._networks, self._param) as (reader, writer):
            writer.write(request.encode("ascii"))
            reply = _Reply()
            try:
                while not reply.complete and (chunk := await reader.read(_READ_BYTES)):
                    reply.feed(chunk)
                    self._check(reply)
            except (OSError, httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                raise self._unreadable("its server's answer is not sound", repr(error)) from None
        if not reply.whole:
            raise self._unreadable("its server broke off")
        return reply

    def _check(self, reply: _Reply) -> None:
        if not reply.headed:
            if reply.received > HEAD_BYTES_MAX:
                raise self._unreadable("its server's answer is not sound")
            return
        if reply.status != 200:
            # Nobody wants the body of a redirect or a refusal.
            reply.complete = True
            return
        if reply.encoded:
            raise self._unreadable("its server sent it compressed, unasked")
        if max(reply.declared, len(reply.content)) > self._bytes_max:
            raise PayloadTooLarge(
                f"{self._param} is over {self._bytes_max} bytes.", param=self._param
            )
        self._holding.grow_to(len(reply.content))

    def _unreadable(self, why: str, detail: str | None = None) -> UrlUnreadable:
        return unreadable(self._param, why, detail)


class _Reply:
    """An answer as it comes. Its callbacks never raise."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.received = 0
        self.status = 0
        self.headed = False
        self.complete = False
        self.declared = -1
        """The announced length in bytes; -1: none."""
        self.chunked = False
        self.encoded = False
        self.location = ""
        self.content = bytearray()

    @property
    def whole(self) -> bool:
        """It ended as it said it would; without a length, the end of the connection is its end."""
        until_closed = self.headed and self.declared < 0 and not self.chunked
        return self.complete or until_closed

    def feed(self, chunk: bytes) -> None:
        """More bytes. Raises what the parser raises."""
        self.received += len(chunk)
        self._parser.feed_data(chunk)

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length":
                self.declared = int(value) if value.isdigit() and len(value) < 20 else -1
            case b"transfer-encoding":
                self.chunked = True
            case b"content-encoding":
                self.encoded = value.strip().lower() not in (b"", b"identity")
            case b"location":
                self.location = value.decode("latin-1")
            case _:
                pass

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.headed = True

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        self.complete = True
