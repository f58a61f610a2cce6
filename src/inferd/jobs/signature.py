"""How a receiver knows that a delivery is ours: the headers of Standard Webhooks.

    webhook-signature: v1,base64(HMAC-SHA256(secret, id.timestamp.body))

The secret of an account is derived from the installation's key. After the key was rotated each
delivery is signed under the old secret, too, for as long as the old key is kept, so a receiver
that was not told yet still accepts it.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Sequence

_PREFIX = "whsec_"


def secret_of(key: bytes, account_id: str) -> bytes:
    """An account's 32 secret bytes under an installation's key."""
    return hmac.new(key, b"webhook\0" + account_id.encode(), hashlib.sha256).digest()


def shown(secret: bytes) -> str:
    """As libraries of Standard Webhooks take it."""
    return _PREFIX + b64encode(secret).decode()


def headers(
    delivery_id: str, unix_seconds: int, body: bytes, secrets: Sequence[bytes]
) -> list[tuple[str, str]]:
    """Id, time and signatures, one for each secret."""
    signed = f"{delivery_id}.{unix_seconds}.".encode() + body
    signatures = (
        "v1," + b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        for secret in secrets
    )
    return [
        ("webhook-id", delivery_id),
        ("webhook-timestamp", str(unix_seconds)),
        ("webhook-signature", " ".join(signatures)),
    ]
