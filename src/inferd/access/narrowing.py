"""What a token makes is at most what it is: no longer, from nowhere else, no money of its own.

Who is signed in without a token is not restricted.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

import msgspec

from inferd.access.caller import Caller, Network
from inferd.access.tokens import TokenWish
from inferd.errors import Forbidden
from inferd.storage import tokens
from inferd.storage.audit import Connection
from inferd.storage.rows import TokenRow

_NS = 1_000_000_000


async def narrowed(connection: Connection, caller: Caller, wish: TokenWish) -> TokenWish:
    """The wish with what it did not name taken from its maker. Raises Forbidden for more."""
    if await tokens.monthly_limit_of(connection, caller.token_id) is not None:
        raise Forbidden(
            "This token has a monthly limit, so it makes no tokens: "
            "each would have a budget of its own.",
            param="monthly_limit",
        )
    return msgspec.structs.replace(
        wish,
        expires_unix_ns=_ends(caller.expires_unix_ns, wish.expires_unix_ns),
        networks=_from(caller.networks, wish.networks),
    )


async def signed_until(
    connection: Connection, caller: Caller, signer: TokenRow, wished: int | None
) -> int | None:
    """When a JWT that the caller signs with the token ends at the latest, in Unix seconds.

    With itself a token signs freely: what it signs never is more than it. None: no bound.
    Raises Forbidden if a JWT of the other token would be more than the caller.
    """
    if signer.id == caller.token_id:
        return wished
    if await tokens.monthly_limit_of(connection, caller.token_id) is not None:
        raise Forbidden(
            "This token has a monthly limit, so it signs with itself alone.", param="api_key_name"
        )
    allowed = signer.allowed_ips
    networks = None if allowed is None else tuple(ip_network(one) for one in allowed)
    if caller.networks is not None and not _within(caller.networks, networks):
        raise Forbidden(
            "That token works from more addresses than this one, which may not sign with it.",
            param="api_key_name",
        )
    ends = _ends(caller.expires_unix_ns, None if wished is None else wished * _NS)
    return None if ends is None else ends // _NS


def _ends(maker: int | None, wished: int | None) -> int | None:
    if maker is None:
        return wished
    if wished is not None and wished > maker:
        raise Forbidden(
            f"This token expires at {maker // _NS} and makes none that lives longer.",
            param="expires_at",
        )
    return maker if wished is None else wished


def _from(
    maker: tuple[Network, ...] | None, wished: tuple[Network, ...] | None
) -> tuple[Network, ...] | None:
    if maker is None:
        return wished
    if wished is None:
        return maker
    if not _within(maker, wished):
        shown = ", ".join(map(str, maker))
        raise Forbidden(
            f"This token works from {shown} and makes none that works from elsewhere.",
            param="allowed_ips",
        )
    return wished


def _within(outer: Sequence[Network], inner: Sequence[Network] | None) -> bool:
    """True if every address of the one lies in the other; None is everywhere."""
    if inner is None:
        return False
    # Neighbours are one network, so that what spans them lies in them.
    v4 = list(collapse_addresses(one for one in outer if isinstance(one, IPv4Network)))
    v6 = list(collapse_addresses(one for one in outer if isinstance(one, IPv6Network)))
    return all(
        any(one.subnet_of(each) for each in v4)
        if isinstance(one, IPv4Network)
        else any(one.subnet_of(each) for each in v6)
        for one in inner
    )
