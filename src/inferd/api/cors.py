"""Which other sites' pages may call: by a list, with tokens alone.

A session cookie is never accepted from another site, so no answer allows credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Headers = tuple[tuple[bytes, bytes], ...]

ANY = "*"
MAX_AGE_SECONDS = 600
EXPOSED = b"x-request-id, request-id, retry-after, x-queue-ms, x-inference-ms"
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")


class Cors:
    """The list of origins."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._any = ANY.encode() in self._origins

    def answer(self, headers: Mapping[bytes, bytes]) -> Headers:
        """What every answer to this request carries."""
        if not self._origins:
            return ()
        vary = ((b"vary", b"origin"),)
        origin = headers.get(b"origin")
        if origin is None or not self._allows(origin):
            return vary
        allowed = ANY.encode() if self._any else origin
        return (
            *vary,
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", EXPOSED),
        )

    def is_preflight(self, method: str, headers: Mapping[bytes, bytes]) -> bool:
        """True if a page of an allowed site asks whether it may."""
        origin = headers.get(b"origin")
        return (
            method == "OPTIONS"
            and origin is not None
            and b"access-control-request-method" in headers
            and self._allows(origin)
        )

    def preflight(self, headers: Mapping[bytes, bytes], methods: Iterable[str]) -> Headers:
        """The answer to that question, beside `answer`."""
        asked = headers.get(b"access-control-request-headers", b"")
        names = asked if _NAMES.fullmatch(asked) else b"authorization, content-type"
        return (
            (b"access-control-allow-methods", ", ".join(sorted(methods)).encode()),
            (b"access-control-allow-headers", names),
            (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
        )

    def _allows(self, origin: bytes) -> bool:
        return self._any or origin in self._origins
