"""Connections to URLs of callers: all addresses of the host are checked, one is connected to."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address

from inferd.api.address import Address, Network, Target, is_allowed, literal
from inferd.errors import UrlNotAllowed, UrlUnreadable

CONNECT_SECONDS_MAX = 4
ADDRESSES_MAX = 4
"""So many of a name's addresses are tried."""
_READ_BYTES = 256 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(
    target: Target, networks: Sequence[Network], param: str
) -> AsyncGenerator[Streams]:
    """A connection, cut at the end. `networks`: not public, and allowed all the same.

    Raises UrlNotAllowed, UrlUnreadable.
    """
    reader, writer = await _connect(target, await _addresses(target, networks, param), param)
    try:
        yield reader, writer
    finally:
        # No farewell is awaited: the other side may be none that says one.
        writer.transport.abort()


def unreadable(param: str, why: str, detail: str | None = None) -> UrlUnreadable:
    """What is said of a URL that leads to nothing sound."""
    return UrlUnreadable(f"{param} could not be fetched: {why}.", param=param, detail=detail)


async def _connect(target: Target, addresses: list[Address], param: str) -> Streams:
    failure = ""
    for address in addresses[:ADDRESSES_MAX]:
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                try:
                    return await _open(target, address)
                except ssl.SSLCertVerificationError:
                    raise unreadable(param, "its server's certificate is not valid") from None
                except OSError as error:
                    failure = repr(error)
    raise unreadable(param, "its server cannot be reached", failure)


async def _addresses(target: Target, networks: Sequence[Network], param: str) -> list[Address]:
    """Every address of the host. If one of them is not allowed, none is."""
    own = literal(target.host)
    addresses = [own] if own is not None else await _look_up(target)
    if not addresses or not all(is_allowed(one, networks) for one in addresses):
        # The same sentence for no address: names inside are nobody's business.
        raise UrlNotAllowed(f"{param} does not lead to a public address.", param=param)
    return addresses


async def _look_up(target: Target) -> list[Address]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=1)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


async def _open(target: Target, address: Address) -> Streams:
    if not target.secure:
        return await asyncio.open_connection(str(address), target.port, limit=_READ_BYTES)
    return await asyncio.open_connection(
        str(address),
        target.port,
        limit=_READ_BYTES,
        ssl=_tls(),
        server_hostname=target.host,
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
