"""OpenID Connect providers for tests: a real one from a package, and one that lies."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.servers import free_port
from tests.web import Web, page, web

START_SECONDS_MAX = 30
CLIENT_ID = "inferd-of-the-tests"
CLIENT_SECRET = "secret-of-the-tests-with-a-provider"


@contextmanager
def real_provider(*people: dict[str, Any]) -> Generator[str]:
    """oidc-provider-mock as a process of its own, with these people; yields its issuer."""
    port = free_port()
    arguments = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    for claims in people:
        arguments += ["--user-claims", msgspec.json.encode(claims).decode()]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    issuer = f"http://127.0.0.1:{port}"
    try:
        _await_start(process, issuer)
        yield issuer
    finally:
        process.kill()
        process.wait()


def _await_start(process: subprocess.Popen[bytes], issuer: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(f"{issuer}/.well-known/openid-configuration").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the provider does not start")


def consent(url: str, subject: str, action: str = "authorize") -> str:
    """What a person does at the provider; the path and query that the browser is sent back to."""
    answer = httpx.post(url, data={"sub": subject, "action": action})
    assert answer.status_code == 302, answer.text
    parts = urlsplit(answer.headers["location"])
    return f"{parts.path}?{parts.query}"


@dataclass
class Liar:
    """A provider whose every word a test decides."""

    site: Web
    key: RSAKey
    discovery: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def issuer(self) -> str:
        """Its true name."""
        return f"http://127.0.0.1:{self.site.port}"

    def publish(self) -> None:
        """Serve the discovery document and the keys."""
        self.discovery = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            **self.discovery,
        }
        self.answer("/.well-known/openid-configuration", self.discovery)
        public = {**self.key.as_dict(private=False), "kid": "1", "use": "sig", "alg": "RS256"}
        self.answer("/keys", {"keys": [public]})

    def answer(self, path: str, body: object, status: str = "200 OK") -> None:
        """Serve JSON."""
        content = msgspec.json.encode(body)
        self.site.pages[path] = page(content, "Content-Type: application/json", status=status)

    def say(self, claims: dict[str, Any], **header: Any) -> None:
        """Answer the next code with an ID token of these claims, signed with its key."""
        token = jwt.encode({"alg": "RS256", "kid": "1", **header}, claims, self.key)
        self.say_token(token)

    def say_token(self, token: str) -> None:
        """Answer the next code with this as the ID token."""
        told = {"access_token": "access", "token_type": "Bearer", "id_token": token}
        self.answer("/token", told)


@asynccontextmanager
async def lying_provider() -> AsyncGenerator[Liar]:
    """A provider whose answers are what the test says."""
    async with web() as site:
        liar = Liar(site, RSAKey.generate_key(2048))
        liar.publish()
        yield liar
