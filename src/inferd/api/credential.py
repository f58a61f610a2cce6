"""Where a credential may stand in a request (deepinfra-api 1.2)."""

from __future__ import annotations

from collections.abc import Mapping

_HEADERS = (b"x-api-key", b"xi-api-key")


def credential(headers: Mapping[bytes, bytes]) -> str | None:
    """The secret that was shown, or None: bearer, x-api-key, xi-api-key, session cookie."""
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, rest = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and rest.strip():
            return rest.strip().decode("latin-1")
    for name in _HEADERS:
        value = headers.get(name)
        if value and value.strip():
            return value.strip().decode("latin-1")
    return _session(headers.get(b"cookie"))


def _session(cookie: bytes | None) -> str | None:
    for pair in (cookie or b"").split(b";"):
        name, _, value = pair.strip().partition(b"=")
        if name == b"session" and value:
            return value.decode("latin-1")
    return None


def from_foreign_site(headers: Mapping[bytes, bytes]) -> bool:
    """True if only a cookie speaks for the caller and the page that sent it is not ours."""
    if any(name in headers for name in (b"authorization", *_HEADERS)):
        return False
    origin = headers.get(b"origin")
    if origin is None:
        return False
    return origin.partition(b"://")[2] != headers.get(b"host", b"")
