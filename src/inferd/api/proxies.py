"""Where a request comes from and what it was sent to, when proxies stand in front.

A proxy adds the address that it saw to the right of a list. The list is read from the right, and
only as far as the hops are trusted: whatever a client wrote itself stands further left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Literal

from inferd.api.address import Address, Network

ProxyHeader = Literal["x-forwarded-for", "forwarded"]
"""Only the one that the proxies write is read: the other one may be the client's."""

HOPS_MAX = 32
HOST_DEFAULT = "127.0.0.1:8000"
"""Where a client names no host, or none that is one."""
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


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

    def origin(self, scope: Mapping[str, Any]) -> str:
        """How the client sees this gateway, such as `https://inferd.example:8443`."""
        peer = scope.get("client")
        trusted = peer is not None and is_trusted(peer[0], self._trusted)
        scheme, host = _told(scope["headers"], self._header) if trusted else ("", "")
        own = "https" if scope.get("scheme") == "https" else "http"
        asked = next((value for key, value in scope["headers"] if key == b"host"), b"")
        host = next(filter(_HOST.fullmatch, (host, asked.decode("latin-1"))), HOST_DEFAULT)
        return f"{scheme if scheme in ('http', 'https') else own}://{host}"


def is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    """True for the address of a proxy of ours."""
    address = _parsed(peer)
    return address is not None and _is_in(address, trusted)


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


def _told(headers: Iterable[tuple[bytes, bytes]], header: ProxyHeader) -> tuple[str, str]:
    """Scheme and host as the nearest proxy says; "" for what it does not say."""
    lists: dict[bytes, str] = {}
    for name, value in headers:
        lists[name] = ",".join(filter(None, (lists.get(name), value.decode("latin-1"))))
    if header == "forwarded":
        nearest = lists.get(b"forwarded", "").rpartition(",")[2]
        return _said(nearest, "proto").lower(), _said(nearest, "host")
    scheme, host = (
        lists.get(name, "").rpartition(",")[2].strip()
        for name in (b"x-forwarded-proto", b"x-forwarded-host")
    )
    return scheme.lower(), host


def _hops(headers: Iterable[tuple[bytes, bytes]], header: ProxyHeader) -> list[str]:
    """The list, the nearest hop last. Several headers of the name are one list."""
    name = header.encode()
    lines = [value.decode("latin-1") for key, value in headers if key == name]
    parts = [part.strip() for part in ",".join(lines).split(",")] if lines else []
    if header == "x-forwarded-for":
        return parts
    return [_said(part, "for") for part in parts]


def _said(element: str, wanted: str) -> str:
    """A pair's value in an element of RFC 7239; "" if it has none or several."""
    pairs = [pair.strip().partition("=") for pair in element.split(";")]
    found = [value for name, _, value in pairs if name.strip().lower() == wanted]
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
