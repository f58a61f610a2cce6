"""Where a request comes from, when proxies stand in front.

A proxy adds the address that it saw to the right of a list. The list is read from the right, and
only as far as the hops are trusted: whatever a client wrote itself stands further left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Literal

from inferd.api.address import Address, Network

ProxyHeader = Literal["x-forwarded-for", "forwarded"]
"""Only the one that the proxies write is read: the other one may be the client's."""

HOPS_MAX = 32


class Proxies:
    """The proxies in front of this gateway, as its settings name them."""

    def __init__(
        self, trusted: Sequence[Network] = (), header: ProxyHeader = "x-forwarded-for"
    ) -> None:
        self._trusted = tuple(trusted)
        self._header: ProxyHeader = header

    def client(self, scope: Mapping[str, Any]) -> str:
        """The client's address of an ASGI request; "" if it is not known."""
        peer = scope.get("client")
        if peer is None:
            return ""
        return client_address(peer[0], scope["headers"], self._trusted, self._header)


def client_address(
    peer: str,
    headers: Iterable[tuple[bytes, bytes]],
    trusted: Sequence[Network],
    header: ProxyHeader = "x-forwarded-for",
) -> str:
    """The nearest address that is no trusted proxy's; "" if a trusted proxy did not know it."""
    address = _parsed(peer)
    if address is None:
        return ""
    if not trusted or not _is_in(address, trusted):
        return str(address)
    hops = _hops(headers, header)
    for _ in range(HOPS_MAX):
        if not hops:
            return str(address)
        address = _parsed(hops.pop())
        if address is None or not _is_in(address, trusted):
            return str(address or "")
    return ""


def _hops(headers: Iterable[tuple[bytes, bytes]], header: ProxyHeader) -> list[str]:
    """The list, the nearest hop last. Several headers of the name are one list."""
    name = header.encode()
    lines = [value.decode("latin-1") for key, value in headers if key == name]
    parts = [part.strip() for part in ",".join(lines).split(",")] if lines else []
    if header == "x-forwarded-for":
        return parts
    return [_for(part) for part in parts]


def _for(element: str) -> str:
    """The `for` of an element of RFC 7239; "" if it has none or several."""
    pairs = [pair.strip().partition("=") for pair in element.split(";")]
    found = [value for name, _, value in pairs if name.strip().lower() == "for"]
    return found[0].strip().strip('"') if len(found) == 1 else ""


@lru_cache(4096)
def _parsed(text: str) -> Address | None:
    """An address, with or without a port; IPv4 inside IPv6 as IPv4."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
