"""Which URLs may be fetched for a caller: one strict grammar, and public addresses only.

The grammar is smaller than a browser's, so that no two readers can see two hosts in one text:
`http` or `https`, a plain host name or a plain address, a port, a path. Nothing is looked up here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple
from urllib.parse import quote

from inferd.errors import UrlNotAllowed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_CHARACTERS_MAX = 4096
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,254})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][^#]*)?(?:#.*)?",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029]")
_SAFE = "/?:@!$&'()*+,;=%-._~[]|"
"""What stays as it is in a path and a query; all else is percent-encoded."""

_IPV4_REFUSED = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier's NAT; some clouds' metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a public number, but the host of a virtual machine in Azure
        "169.254.0.0/16",  # link-local: the clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
"""IANA's registry of special IPv4 addresses, and what lies beside it."""
_IPV6_GLOBAL = IPv6Network("2000::/3")
"""The only part of IPv6 from which public addresses are given out."""
_IPV6_REFUSED = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")


class Target(NamedTuple):
    """A URL, taken apart once; check and connection both read this."""

    secure: bool
    host: str
    """In lower case, without brackets and the final dot."""
    port: int
    path: str
    """Path and query, percent-encoded."""

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL again, in its one spelling."""
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.path}"


def parse_url(url: str, param: str) -> Target:
    """Take a caller's URL apart. Raises UrlNotAllowed for whatever is not plain."""
    found = _URL.fullmatch(url) if len(url) <= URL_CHARACTERS_MAX else None
    if found is None or _FORBIDDEN.search(url):
        raise UrlNotAllowed(f"{param} is no plain http or https URL.", param=param)
    secure = found["scheme"].lower() == "https"
    port = int(found["port"] or (443 if secure else 80))
    host = _host(found["host"].lower())
    if host is None or not 1 <= port <= 65_535:
        raise UrlNotAllowed(f"{param} names no plain host and port.", param=param)
    path = quote(found["target"] or "/", safe=_SAFE)
    return Target(secure, host, port, path if path.startswith("/") else f"/{path}")


def _host(text: str) -> str | None:
    if text.startswith("["):
        return _spelled(text[1:-1])
    name = text.removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # Octal, hexadecimal and short forms mean one address here and another one there.
        return _spelled(name)
    sound = len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    return name if sound else None


def _spelled(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def literal(host: str) -> Address | None:
    """The address, if the host is one."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def read_networks(text: str) -> tuple[Network, ...]:
    """Networks from a list with commas. ValueError for what is none."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def is_allowed(address: Address, networks: Sequence[Network] = ()) -> bool:
    """True for a public address, and for one in these networks."""
    address = _embedded(address)
    if any(address in network for network in networks):
        return True
    if isinstance(address, IPv4Address):
        return not _in_any(address, _IPV4_REFUSED)
    return (
        address.scope_id is None and address in _IPV6_GLOBAL and not _in_any(address, _IPV6_REFUSED)
    )


def _in_any(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _embedded(address: Address) -> Address:
    """Where a packet to this IPv6 address goes in the end, if that is an IPv4 address."""
    if isinstance(address, IPv4Address):
        return address
    if address in _MAPPED or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return address
