"""Secrets at rest: sealed under the installation's key, so that only it gives them back.

Encrypt, then authenticate, with HMAC alone: the pad is HMAC-SHA-512 over a random nonce and a
counter, the tag HMAC-SHA-256 over whose it is, nonce and text; both keys are derived.
docs/decisions/0017 says why no library does it.
"""

from __future__ import annotations

import hmac
import os

VERSION = b"\x01"
NONCE_BYTES = 16
TAG_BYTES = 32
_PAD_BYTES = 64


class NotSealed(Exception):
    """It was not sealed under this key for this owner, or it was changed since."""


def seal(key: bytes, owner: str, secret: bytes) -> bytes:
    """Seal a secret; it opens for the same key and owner only."""
    nonce = os.urandom(NONCE_BYTES)
    text = _masked(_derived(key, b"pad"), nonce, secret)
    head = VERSION + nonce + text
    return head + _tag(key, owner, head)


def unseal(key: bytes, owner: str, sealed: bytes) -> bytes:
    """The secret. Raises NotSealed."""
    head, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
    if not head.startswith(VERSION) or not hmac.compare_digest(tag, _tag(key, owner, head)):
        raise NotSealed
    nonce, text = head[1 : 1 + NONCE_BYTES], head[1 + NONCE_BYTES :]
    return _masked(_derived(key, b"pad"), nonce, text)


def _tag(key: bytes, owner: str, head: bytes) -> bytes:
    named = owner.encode()
    content = len(named).to_bytes(4, "big") + named + head
    return hmac.digest(_derived(key, b"tag"), content, "sha256")


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"inferd sealing " + purpose, "sha512")


def _masked(key: bytes, nonce: bytes, content: bytes) -> bytes:
    blocks = -(-len(content) // _PAD_BYTES)
    pad = b"".join(
        hmac.digest(key, nonce + count.to_bytes(4, "big"), "sha512") for count in range(blocks)
    )
    return bytes(a ^ b for a, b in zip(content, pad, strict=False))
