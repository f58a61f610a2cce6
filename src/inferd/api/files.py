"""A whole file as an answer, or the part of it that a player asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re

from inferd.api.exchange import Exchange

_RANGE = re.compile(rb"bytes=([0-9]{0,15})-([0-9]{0,15})")


async def respond_file(exchange: Exchange, content: bytes, mime: str) -> None:
    """200 with everything, 206 with one range, or 416. Other forms of a range are ignored."""
    headers = [
        (b"content-type", mime.encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"private, max-age=3600"),
    ]
    found = _RANGE.fullmatch(exchange.headers.get(b"range", b"").strip())
    if found is None or not (found[1] or found[2]):
        await exchange.respond(200, content, headers)
        return
    size = len(content)
    first, end = _between(found[1], found[2], size)
    if first >= end:
        await exchange.respond(416, b"", [*headers, (b"content-range", b"bytes */%d" % size)])
        return
    told = b"bytes %d-%d/%d" % (first, end - 1, size)
    await exchange.respond(206, content[first:end], [*headers, (b"content-range", told)])


def _between(first: bytes, last: bytes, size: int) -> tuple[int, int]:
    """(first, end) of `first-last`, `first-` or, counted from the end, `-last`."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size
