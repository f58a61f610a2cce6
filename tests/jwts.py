"""Scoped JWTs as clients make them offline, right and wrong; nothing of the server's own code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from inferd.access.caller import INFERENCE_RUN
from tests.gateway import Gateway

ALGORITHMS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def offline_jwt(
    uid: str, name: str, secret: str, claims: dict[str, Any] | bytes, **header: Any
) -> str:
    """What DeepInfra's documentation tells clients to do, in a few lines of their own."""
    kid = f"{uid}:{base64.b64encode(name.encode()).decode()}"
    head = {"alg": "HS256", "kid": kid, "typ": "JWT", **header}
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{b64(json.dumps(head).encode())}.{b64(body)}"
    digest = ALGORITHMS.get(head["alg"], hashlib.sha256)
    signature = hmac.new(secret.encode(), signed.encode(), digest).digest()
    return f"jwt:{signed}.{b64(signature)}"


def b64(content: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


async def scoped_jwt_of(gate: Gateway, **claims: Any) -> str:
    """A JWT of a new inference token of the gateway's admin."""
    name = f"jwt {time.time_ns()}"
    _, secret = await gate.services.tokens.create(gate.account_id, name, (INFERENCE_RUN,))
    claims = {"sub": gate.account_id, "exp": int(time.time()) + 3600, **claims}
    return offline_jwt(gate.account_id, name, secret, claims)
