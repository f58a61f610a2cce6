"""Send a webhook: to a checked public address, without redirects, its answer's body unread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httptools

from inferd.api.address import Network, parse_url
from inferd.api.checked_connection import connected
from inferd.errors import FetchTimedOut, UrlUnreadable

SECONDS_MAX = 10.0
HEAD_BYTES_MAX = 64 * 1024
_READ_BYTES = 16 * 1024
_PARAM = "webhook"


async def post_url(
    url: str, headers: Sequence[tuple[str, str]], body: bytes, networks: Sequence[Network]
) -> int:
    """POST JSON; the status of the answer. `networks`: not public, and allowed all the same.

    Raises UrlNotAllowed, UrlUnreadable, FetchTimedOut.
    """
    target = parse_url(url, _PARAM)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: inferd\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n{lines}\r\n"
    )
    try:
        async with (
            asyncio.timeout(SECONDS_MAX),
            connected(target, networks, _PARAM) as (
                reader,
                writer,
            ),
        ):
            writer.write(head.encode("ascii"))
            writer.write(body)
            return await _status(reader)
    except TimeoutError:
        raise FetchTimedOut(f"It did not answer within {SECONDS_MAX:g} seconds.") from None
    except OSError as error:
        raise UrlUnreadable("It broke off.", detail=repr(error)) from None


class _Head:
    """Of the answer."""

    def __init__(self) -> None:
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        self.complete = True


async def _status(reader: asyncio.StreamReader) -> int:
    head, received = _Head(), 0
    while not head.complete:
        chunk = await reader.read(_READ_BYTES)
        received += len(chunk)
        if not chunk or received > HEAD_BYTES_MAX:
            raise UrlUnreadable("Its answer is not sound.")
        try:
            head.parser.feed_data(chunk)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise UrlUnreadable("Its answer is not sound.", detail=repr(error)) from None
    status: int = head.parser.get_status_code()
    return status
