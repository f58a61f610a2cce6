"""Where a credential may stand in a request (deepinfra-api 1.2), and who may bring a cookie."""

from __future__ import annotations

from collections.abc import Mapping

SESSION_COOKIE = b"session"
_HEADERS = (b"x-api-key", b"xi-api-key")
_SAFE_METHODS = frozenset({"GET", "HEAD"})


def credential(headers: Mapping[bytes, bytes]) -> str | None:
    """The token that was shown in a header, or None: bearer, x-api-key, xi-api-key."""
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, rest = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and rest.strip():
            return rest.strip().decode("latin-1")
    for name in _HEADERS:
        value = headers.get(name)
        if value and value.strip():
            return value.strip().decode("latin-1")
    return None


def session_secret(headers: Mapping[bytes, bytes]) -> str | None:
    """The session cookie, or None. A request with any header for tokens has no session."""
    if any(name in headers for name in (b"authorization", *_HEADERS)):
        return None
    return cookie(headers, SESSION_COOKIE)


def cookie(headers: Mapping[bytes, bytes], wanted: bytes) -> str | None:
    """The first cookie of the name."""
    for pair in headers.get(b"cookie", b"").split(b";"):
        name, _, value = pair.strip().partition(b"=")
        if name == wanted and value:
            return value.decode("latin-1")
    return None


def own_origin(
    public: bytes | None, headers: Mapping[bytes, bytes], *, secure: bool
) -> bytes | None:
    """The origin of our pages: the public URL, or the one of TLS that ends here; else None."""
    if public is None and secure:
        return b"https://" + headers.get(b"host", b"")
    return public


def is_from_own_page(method: str, headers: Mapping[bytes, bytes], own: bytes | None = None) -> bool:
    """True if a cookie may speak for this request: a page of ours, or a plain visit, sent it.

    What changes something needs the proof that browsers give and pages cannot forge: `origin`, or
    `sec-fetch-site` without it.
    """
    origin = headers.get(b"origin")
    if origin is not None:
        if own is not None:
            return origin == own
        scheme, found, host = origin.partition(b"://")
        return bool(found) and scheme in (b"http", b"https") and host == headers.get(b"host", b"")
    if method in _SAFE_METHODS:
        return True
    return headers.get(b"sec-fetch-site") in (b"same-origin", b"none")
