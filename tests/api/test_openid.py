"""People who sign in through an OpenID Connect provider: a real one, and one that lies."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sqlite3
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from inferd.access.openid import Provider
from inferd.access.provider_sign_in import SECONDS_MAX
from inferd.clock import ManualClock
from tests.gateway import Client, Gateway, Response, gateway
from tests.oidc import CLIENT_ID, CLIENT_SECRET, consent, real_provider

HOST = {"host": "localhost:8000"}
ALICE = {"sub": "alice-1", "email": "Alice@Example.com", "email_verified": True, "name": "Alice"}
BOB = {"sub": "bob-1", "email": "bob@example.com", "email_verified": False}
CAROL = {"sub": "carol-1", "email": "carol@other.example", "email_verified": True}


@pytest.fixture(scope="module")
def issuer() -> Generator[str]:
    with real_provider(ALICE, BOB, CAROL) as url:
        yield url


def provider(issuer: str, **changes: Any) -> Provider:
    made = Provider(
        issuer=issuer, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, make_accounts=True
    )
    return msgspec.structs.replace(made, **changes)


@asynccontextmanager
async def house(
    tmp_path: Path, made: Provider, clock: ManualClock | None = None, name: str = "acme"
) -> AsyncGenerator[Gateway]:
    async with gateway(tmp_path, providers={name: made}, clock=clock) as gate:
        yield gate


class Browser:
    """Keeps cookies and follows to the provider and back."""

    def __init__(self, gate: Gateway) -> None:
        self._gate = gate
        self.cookies: dict[str, str] = {}

    async def get(self, path: str) -> Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        client = Client(self._gate.client.app, token=None, headers={**HOST, "cookie": cookie})
        answer = await client.get(path)
        for line in answer.headers.get("set-cookie", "").split(", "):
            name, found, value = line.partition(";")[0].partition("=")
            if found:
                self.cookies[name] = value
        return answer

    async def leave(self, path: str = "/sign-in/acme") -> str:
        """Where it is sent."""
        answer = await self.get(path)
        assert answer.status == 303, answer.body
        return answer.headers["location"]


async def arrive(gate: Gateway, subject: str) -> tuple[Browser, Response]:
    """The whole dance."""
    browser = Browser(gate)
    back = await asyncio.to_thread(consent, await browser.leave(), subject)
    return browser, await browser.get(back)


def asked(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


class TestWithARealProvider:
    async def test_the_whole_dance_makes_a_person_and_a_session(
        self, tmp_path: Path, issuer: str
    ) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            browser = Browser(gate)
            url = await browser.leave("/sign-in/acme?return_to=/docs")
            back = await asyncio.to_thread(consent, url, "alice-1")
            answer = await browser.get(back)
            assert answer.status == 303
            assert answer.headers["location"] == "/docs"
            told = (await browser.get("/v1/session")).json()
            assert told["email"] == "alice@example.com"
            assert told["accounts"] == [
                {
                    "account_id": told["account_id"],
                    "name": "alice",
                    "kind": "personal",
                    "role": "admin",
                }
            ]
            assert (await browser.get("/v1/status")).status == 403

    async def test_what_is_asked_has_pkce_state_and_nonce(
        self, tmp_path: Path, issuer: str
    ) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            url = await Browser(gate).leave()
            query = asked(url)
            assert url.startswith(f"{issuer}/oauth2/authorize?")
            assert query["redirect_uri"] == "http://localhost:8000/sign-in/acme/callback"
            assert query["code_challenge_method"] == "S256"
            connection = sqlite3.connect(gate.database_path)
            verifier, nonce = connection.execute("SELECT verifier, nonce FROM sign_ins").fetchone()
            dump = "\n".join(connection.iterdump())
            connection.close()
            hashed = hashlib.sha256(verifier.encode()).digest()
            challenge = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
            assert query["code_challenge"] == challenge
            assert query["nonce"] == nonce
            assert query["state"] not in dump
            assert min(len(query["state"]), len(nonce), len(verifier)) >= 43

    async def test_the_same_person_comes_back(self, tmp_path: Path, issuer: str) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            first, _ = await arrive(gate, "alice-1")
            second, _ = await arrive(gate, "alice-1")
            told = [(await browser.get("/v1/session")).json() for browser in (first, second)]
            assert told[0]["person_id"] == told[1]["person_id"]
            assert told[0]["session_id"] != told[1]["session_id"]

    async def test_an_address_that_is_not_verified_is_nobodys(
        self, tmp_path: Path, issuer: str
    ) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            browser, answer = await arrive(gate, "bob-1")
            assert answer.status == 403
            assert b"has not verified your e-mail address" in answer.body
            assert "session" not in browser.cookies

    async def test_a_stranger_gets_no_account_unless_the_setting_says_so(
        self, tmp_path: Path, issuer: str
    ) -> None:
        async with house(tmp_path, provider(issuer, make_accounts=False)) as gate:
            _, answer = await arrive(gate, "alice-1")
            assert answer.status == 403
            assert b"ask an admin to invite you" in answer.body

    async def test_other_domains_stay_outside(self, tmp_path: Path, issuer: str) -> None:
        made = provider(issuer, email_domains=("example.com",))
        async with house(tmp_path, made) as gate:
            assert (await arrive(gate, "carol-1"))[1].status == 403
            assert (await arrive(gate, "alice-1"))[1].status == 303

    async def test_a_code_is_taken_once(self, tmp_path: Path, issuer: str) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            browser = Browser(gate)
            back = await asyncio.to_thread(consent, await browser.leave(), "alice-1")
            kept = dict(browser.cookies)
            assert (await browser.get(back)).status == 303
            browser.cookies = kept
            assert (await browser.get(back)).status == 401
            # The old code with a new state: the provider knows that it was used.
            state = asked(await browser.leave())["state"]
            again = f"/sign-in/acme/callback?code={asked(back)['code']}&state={state}"
            assert (await browser.get(again)).status == 401

    async def test_of_two_arrivals_at_once_one_gets_in(self, tmp_path: Path, issuer: str) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            browser = Browser(gate)
            back = await asyncio.to_thread(consent, await browser.leave(), "alice-1")
            answers = await asyncio.gather(*(browser.get(back) for _ in range(5)))
            assert sorted(answer.status for answer in answers) == [303, 401, 401, 401, 401]

    async def test_another_browser_is_not_signed_in_with_it(
        self, tmp_path: Path, issuer: str
    ) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            attacker, victim = Browser(gate), Browser(gate)
            back = await asyncio.to_thread(consent, await attacker.leave(), "alice-1")
            assert (await victim.get(back)).status == 401
            await victim.leave()
            assert (await victim.get(back)).status == 401

    async def test_no_answer_of_another_state_is_taken(self, tmp_path: Path, issuer: str) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            browser = Browser(gate)
            back = await asyncio.to_thread(consent, await browser.leave(), "alice-1")
            code = asked(back)["code"]
            for state in ("", "x", "' OR 1=1 --", asked(back)["state"][:-1]):
                wrong = f"/sign-in/acme/callback?code={code}&state={state}"
                assert (await browser.get(wrong)).status == 401

    async def test_a_wrong_nonce_is_refused(self, tmp_path: Path, issuer: str) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            browser = Browser(gate)
            back = await asyncio.to_thread(consent, await browser.leave(), "alice-1")
            connection = sqlite3.connect(gate.database_path)
            connection.execute("UPDATE sign_ins SET nonce = 'of another sign-in'")
            connection.commit()
            connection.close()
            assert (await browser.get(back)).status == 401

    async def test_a_code_for_another_client_is_refused(self, tmp_path: Path, issuer: str) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            browser = Browser(gate)
            url = (await browser.leave()).replace(CLIENT_ID, "another-client")
            back = await asyncio.to_thread(consent, url, "alice-1")
            assert (await browser.get(back)).status == 401

    async def test_strangers_do_not_fill_the_table(
        self, tmp_path: Path, issuer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inferd.access.provider_sign_in.UNDER_WAY_MAX", 3)
        clock = ManualClock()
        async with house(tmp_path, provider(issuer), clock) as gate:
            statuses = [(await Browser(gate).get("/sign-in/acme")).status for _ in range(5)]
            assert statuses == [303, 303, 303, 429, 429]
            clock.advance(SECONDS_MAX + 1)
            assert (await Browser(gate).get("/sign-in/acme")).status == 303

    async def test_who_says_no_is_told_so(self, tmp_path: Path, issuer: str) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            browser = Browser(gate)
            back = await asyncio.to_thread(consent, await browser.leave(), "alice-1", "deny")
            answer = await browser.get(back)
            assert answer.status == 401
            assert b"did not sign you in" in answer.body

    async def test_an_issuer_of_another_name_is_refused(self, tmp_path: Path, issuer: str) -> None:
        other = issuer.replace("127.0.0.1", "localhost")
        async with house(tmp_path, provider(f"{other}/")) as gate:
            assert (await Browser(gate).get("/sign-in/acme")).status == 502

    async def test_a_provider_that_nobody_set_up_is_not_there(
        self, tmp_path: Path, issuer: str
    ) -> None:
        async with house(tmp_path, provider(issuer)) as gate:
            for path in ("/sign-in/okta", "/sign-in/acme/", "/sign-in/acme/callback/callback"):
                assert (await Browser(gate).get(path)).status in (401, 404), path
