"""What a call asks for, in 32 bytes: the same when a client sends it again."""

from __future__ import annotations

import asyncio
from hashlib import blake2b

from inferd.api.cut_texts import Raw
from inferd.api.steps import find

_IN_LOOP_BYTES = 256 * 1024
"""More is hashed in a thread: nobody's stream waits for it."""


async def fingerprint(asked: str, content_type: bytes, body: Raw) -> bytes:
    """Of method, path, query and body. A form's boundary, new with each try, does not count."""
    if len(body) <= _IN_LOOP_BYTES:
        return _digest(asked, content_type, body)
    return await asyncio.to_thread(_digest, asked, content_type, body)


def _digest(asked: str, content_type: bytes, body: Raw) -> bytes:
    _, found, boundary = content_type.partition(b"boundary=")
    boundary = boundary.partition(b";")[0].strip(b' "') if found else b""
    digest = blake2b(asked.encode(), digest_size=32)
    digest.update(b"\0" + content_type.partition(b";")[0] + b"\0")
    at, seen = 0, memoryview(body)
    while boundary and (end := find(body, boundary, at)) >= 0:
        digest.update(seen[at:end])
        at = end + len(boundary)
    digest.update(seen[at:])
    return digest.digest()
