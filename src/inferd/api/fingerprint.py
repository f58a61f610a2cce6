"""What a call asks for, in 32 bytes: the same when a client sends it again."""

from __future__ import annotations

import asyncio
from hashlib import blake2b

_IN_LOOP_BYTES = 256 * 1024
"""More is hashed in a thread: nobody's stream waits for it."""


async def fingerprint(asked: str, content_type: bytes, body: bytes) -> bytes:
    """Of method, path, query and body. A form's boundary, new with each try, does not count."""
    if len(body) <= _IN_LOOP_BYTES:
        return _digest(asked, content_type, body)
    return await asyncio.to_thread(_digest, asked, content_type, body)


def _digest(asked: str, content_type: bytes, body: bytes) -> bytes:
    _, found, boundary = content_type.partition(b"boundary=")
    boundary = boundary.partition(b";")[0].strip(b' "')
    if found and boundary:
        body = body.replace(boundary, b"")
    digest = blake2b(asked.encode(), digest_size=32)
    digest.update(b"\0" + content_type.partition(b";")[0] + b"\0")
    digest.update(body)
    return digest.digest()
