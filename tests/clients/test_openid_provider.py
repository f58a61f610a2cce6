"""oidc-provider from npm, a certified provider that demands PKCE, signs people in here."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from tests.api.test_openid import Browser, house, provider
from tests.servers import free_port

SOURCE = Path(__file__).parent / "node_provider"
HERE = "http://localhost:8000"
CALLBACK = f"{HERE}/sign-in/acme/callback"
PEOPLE = {
    "alice": {"email": "alice@example.com", "email_verified": True, "name": "Alice"},
    "bob": {"email": "bob@example.com", "email_verified": False},
}
STEPS_MAX = 20

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm"),
]


@pytest.fixture(scope="module")
def installed() -> Path:
    """The provider, installed once for each user and version."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "inferd-tests" / "node_provider"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (SOURCE / "package.json").read_bytes()
    mark = folder / "package.json"
    if not mark.exists() or mark.read_bytes() != wanted or not (folder / "node_modules").exists():
        mark.write_bytes(wanted)
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=folder, check=True, timeout=300)
    shutil.copy(SOURCE / "provider.mjs", folder)
    return folder


@pytest.fixture(scope="module")
def issuer(installed: Path) -> Generator[str]:
    """A running provider."""
    port = free_port()
    process = subprocess.Popen(
        ["node", "provider.mjs", str(port), CALLBACK, json.dumps(PEOPLE)],
        cwd=installed,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        while b"listening" not in (line := process.stdout.readline()):
            assert line, "the provider does not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def consent(url: str, person: str) -> str:
    """Sign in and agree at the provider; where the browser is sent back to."""
    with httpx.Client() as client:
        answer = client.get(url)
        for _ in range(STEPS_MAX):
            target = answer.headers.get("location")
            if target is not None:
                target = urljoin(str(answer.url), target)
                if target.startswith(HERE):
                    return target.removeprefix(HERE)
                answer = client.get(target)
                continue
            form = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            assert form is not None, answer.text[:500]
            assert prompt is not None, answer.text[:500]
            fields = {"prompt": prompt[1], "login": person, "password": "x"}
            answer = client.post(urljoin(str(answer.url), form[1]), data=fields)
    raise AssertionError("the provider never sends the browser back")


async def test_a_person_signs_in(tmp_path: Path, issuer: str) -> None:
    async with house(tmp_path, provider(issuer)) as gate:
        browser = Browser(gate)
        back = await asyncio.to_thread(consent, await browser.leave(), "alice")
        answer = await browser.get(back)
        assert answer.status == 303, answer.body
        told = (await browser.get("/v1/session")).json()
        assert (told["email"], told["name"]) == ("alice@example.com", "Alice")
        assert (await browser.get(back)).status == 401


async def test_a_verifier_of_another_sign_in_is_refused(tmp_path: Path, issuer: str) -> None:
    async with house(tmp_path, provider(issuer)) as gate:
        browser = Browser(gate)
        back = await asyncio.to_thread(consent, await browser.leave(), "alice")
        connection = sqlite3.connect(gate.database_path)
        connection.execute("UPDATE sign_ins SET verifier = ?", ("v" * 43,))
        connection.commit()
        connection.close()
        assert (await browser.get(back)).status == 401


async def test_without_pkce_the_provider_says_no(tmp_path: Path, issuer: str) -> None:
    async with house(tmp_path, provider(issuer)) as gate:
        browser = Browser(gate)
        bare = re.sub(r"&code_challenge(_method)?=[^&]*", "", await browser.leave())
        back = await asyncio.to_thread(consent, bare, "alice")
        assert "error=invalid_request" in back
        assert (await browser.get(back)).status == 401


async def test_an_address_that_is_not_verified_is_nobodys(tmp_path: Path, issuer: str) -> None:
    async with house(tmp_path, provider(issuer)) as gate:
        browser = Browser(gate)
        back = await asyncio.to_thread(consent, await browser.leave(), "bob")
        assert (await browser.get(back)).status == 403
