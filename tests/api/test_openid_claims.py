"""Sign-in by OpenID Connect: what a provider claims, where it lies, groups that lead into teams."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from inferd.access.openid import TeamOfGroup
from inferd.access.provider_sign_in import SECONDS_MAX
from inferd.clock import ManualClock
from inferd.storage import accounts
from inferd.storage.rows import AccountRow
from tests.api.test_openid import ALICE, HOST, Browser, asked, house, provider
from tests.gateway import Client, Gateway, Response
from tests.oidc import CLIENT_ID, CLIENT_SECRET, Liar, lying_provider


@asynccontextmanager
async def liars_house(
    tmp_path: Path, **changes: Any
) -> AsyncGenerator[tuple[Gateway, Liar, ManualClock]]:
    clock = ManualClock(time.time_ns())
    async with (
        lying_provider() as liar,
        house(tmp_path, provider(liar.issuer, **changes), clock) as gate,
    ):
        yield gate, liar, clock


def sound(liar: Liar, clock: ManualClock, nonce: str) -> dict[str, Any]:
    now = clock.unix_ns() // 1_000_000_000
    times = {"iat": now, "exp": now + 60}
    return {**ALICE, "iss": liar.issuer, "aud": CLIENT_ID, "nonce": nonce, **times}


async def told(gate: Gateway, liar: Liar, clock: ManualClock, **changes: Any) -> Response:
    """Sign in with an ID token that differs from a sound one by this; None: left out."""
    browser = Browser(gate)
    query = asked(await browser.leave())
    claims = {**sound(liar, clock, query["nonce"]), **changes}
    liar.say({name: value for name, value in claims.items() if value is not None})
    return await browser.get(f"/sign-in/acme/callback?code=c&state={query['state']}")


class TestWithAProviderThatLies:
    async def test_the_truth_is_accepted(self, tmp_path: Path) -> None:
        async with liars_house(tmp_path) as (gate, liar, clock):
            assert (await told(gate, liar, clock)).status == 303

    @pytest.mark.parametrize(
        "changes",
        [
            {"nonce": "other"},
            {"nonce": None},
            {"iss": "https://evil.example"},
            {"iss": None},
            {"aud": "another-client"},
            {"aud": ["another-client"]},
            {"aud": [CLIENT_ID, "another-client"]},
            {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
            {"aud": None},
            {"azp": "another-client"},
            {"sub": None},
            {"sub": ""},
            {"sub": 7},
            {"exp": None},
            {"exp": 1},
            {"exp": "soon"},
            {"iat": 9_999_999_999},
            {"iat": None},
            {"at_hash": "of-another-token"},
        ],
    )
    async def test_a_claim_that_is_not_right_is_refused(
        self, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        async with liars_house(tmp_path) as (gate, liar, clock):
            answer = await told(gate, liar, clock, **changes)
            assert answer.status == 401
            assert b"begin anew" in answer.body

    @pytest.mark.parametrize("verified", [None, False, "true", 1, "false"])
    async def test_a_verified_address_is_told_as_such(
        self, tmp_path: Path, verified: object
    ) -> None:
        async with liars_house(tmp_path) as (gate, liar, clock):
            answer = await told(gate, liar, clock, email_verified=verified)
            assert answer.status == 403

    async def test_an_id_token_that_expired_on_its_way_is_refused(self, tmp_path: Path) -> None:
        async with liars_house(tmp_path) as (gate, liar, clock):
            browser = Browser(gate)
            query = asked(await browser.leave())
            liar.say(sound(liar, clock, query["nonce"]))
            clock.advance(180)
            back = f"/sign-in/acme/callback?code=c&state={query['state']}"
            assert (await browser.get(back)).status == 401

    async def test_who_takes_too_long_begins_anew(self, tmp_path: Path) -> None:
        async with liars_house(tmp_path) as (gate, liar, clock):
            browser = Browser(gate)
            query = asked(await browser.leave())
            clock.advance(SECONDS_MAX)
            liar.say(sound(liar, clock, query["nonce"]))
            back = f"/sign-in/acme/callback?code=c&state={query['state']}"
            assert (await browser.get(back)).status == 401

    @pytest.mark.parametrize("kind", ["none", "shared secret", "public key", "other key", "cut"])
    async def test_a_signature_of_anything_but_its_key_is_refused(
        self, tmp_path: Path, kind: str
    ) -> None:
        async with liars_house(tmp_path) as (gate, liar, clock):
            browser = Browser(gate)
            query = asked(await browser.leave())
            liar.say_token(forged(kind, liar, sound(liar, clock, query["nonce"])))
            back = f"/sign-in/acme/callback?code=c&state={query['state']}"
            assert (await browser.get(back)).status == 401

    async def test_a_new_key_is_found(self, tmp_path: Path) -> None:
        async with liars_house(tmp_path) as (gate, liar, clock):
            assert (await told(gate, liar, clock)).status == 303
            liar.key = RSAKey.generate_key(2048)
            liar.publish()
            clock.advance(11)
            assert (await told(gate, liar, clock)).status == 303

    async def test_an_answer_of_another_issuer_is_refused(self, tmp_path: Path) -> None:
        async with liars_house(tmp_path) as (gate, liar, clock):
            for issuer, status in (("https://evil.example", 401), (liar.issuer, 303)):
                browser = Browser(gate)
                query = asked(await browser.leave())
                liar.say(sound(liar, clock, query["nonce"]))
                back = f"/sign-in/acme/callback?code=c&state={query['state']}&iss={issuer}"
                assert (await browser.get(back)).status == status

    @pytest.mark.parametrize(
        "changes",
        [
            {"token_endpoint": "http://evil.example/token"},
            {"jwks_uri": "file:///etc/passwd"},
            {"authorization_endpoint": "javascript:alert(1)"},
            {"code_challenge_methods_supported": ["plain"]},
            {"issuer": "https://evil.example"},
        ],
    )
    async def test_a_strange_discovery_document_is_refused(
        self, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        async with liars_house(tmp_path) as (gate, liar, _):
            liar.discovery = {**liar.discovery, **changes}
            liar.publish()
            assert (await Browser(gate).get("/sign-in/acme")).status == 502

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ([], 502),
            ({"access_token": "x"}, 401),
            ({"id_token": 5}, 401),
            ({"id_token": "a.b.c"}, 401),
            ({"id_token": "x" * 1_100_000}, 502),
        ],
    )
    async def test_a_strange_token_answer_is_refused(
        self, tmp_path: Path, body: object, status: int
    ) -> None:
        async with liars_house(tmp_path) as (gate, liar, _):
            browser = Browser(gate)
            state = asked(await browser.leave())["state"]
            liar.answer("/token", body)
            back = f"/sign-in/acme/callback?code=c&state={state}"
            assert (await browser.get(back)).status == status

    @pytest.mark.parametrize(
        ("status", "ours"),
        [("400 Bad Request", 401), ("401 Unauthorized", 401), ("503 Busy", 502), ("302 Go", 502)],
    )
    async def test_a_refused_code_is_a_refused_person(
        self, tmp_path: Path, status: str, ours: int
    ) -> None:
        async with liars_house(tmp_path) as (gate, liar, _):
            browser = Browser(gate)
            state = asked(await browser.leave())["state"]
            liar.answer("/token", {"error": "invalid_grant"}, status)
            back = f"/sign-in/acme/callback?code=c&state={state}"
            assert (await browser.get(back)).status == ours

    async def test_an_address_of_somebody_elses_subject_is_refused(self, tmp_path: Path) -> None:
        async with liars_house(tmp_path) as (gate, liar, clock):
            assert (await told(gate, liar, clock)).status == 303
            assert (await told(gate, liar, clock, sub="another")).status == 403

    async def test_the_user_info_must_be_of_the_same_subject(self, tmp_path: Path) -> None:
        async with lying_provider() as liar:
            liar.discovery["userinfo_endpoint"] = f"{liar.issuer}/me"
            liar.publish()
            clock = ManualClock(time.time_ns())
            async with house(tmp_path, provider(liar.issuer), clock) as gate:
                for subject, status in (("mallory", 401), ("alice-1", 303)):
                    liar.answer("/me", {**ALICE, "sub": subject})
                    answer = await told(gate, liar, clock, email=None, email_verified=None)
                    assert answer.status == status


def forged(kind: str, liar: Liar, claims: dict[str, Any]) -> str:
    if kind == "other key":
        return jwt.encode({"alg": "RS256", "kid": "1"}, claims, RSAKey.generate_key(2048))
    if kind == "cut":
        return jwt.encode({"alg": "RS256", "kid": "1"}, claims, liar.key)[:-20]
    header = {"alg": "none" if kind == "none" else "HS256", "kid": "1"}
    if kind == "none":
        parts = (msgspec.json.encode(part) for part in (header, claims))
        head, body = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        return f"{head}.{body}."
    shared = CLIENT_SECRET.encode() if kind == "shared secret" else liar.key.as_pem(private=False)
    body = msgspec.json.encode(claims)
    content = b".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=") for part in (msgspec.json.encode(header), body)
    )
    signature = base64.urlsafe_b64encode(hmac.digest(shared, content, "sha256")).rstrip(b"=")
    return (content + b"." + signature).decode()


TEAMS = {
    "ml": TeamOfGroup(team="research"),
    "ml-leads": TeamOfGroup(team="research", role="admin"),
    "ops": TeamOfGroup(team="admin", role="admin"),
}


class TestGroups:
    async def memberships(self, gate: Gateway, liar: Liar, clock: ManualClock, *groups: str) -> Any:
        answer = await told(gate, liar, clock, groups=list(groups))
        if answer.status != 303:
            return answer.status
        cookies = answer.headers["set-cookie"].split(", ")
        session = next(line for line in cookies if line.startswith("session="))
        headers = {**HOST, "cookie": session.partition(";")[0]}
        shown = await Client(gate.client.app, token=None, headers=headers).get("/v1/session")
        return {entry["name"]: entry["role"] for entry in shown.json()["accounts"]}

    async def test_lead_into_teams_and_out_of_them(self, tmp_path: Path) -> None:
        async with liars_house(tmp_path, teams=TEAMS) as (gate, liar, clock):
            async with gate.services.database.writing() as connection:
                team = AccountRow("acc_research", "research", 1, None, kind="team")
                await accounts.add(connection, team)
            own = {"alice": "admin"}
            for groups, teams in (
                ((), {}),
                (("ml", "unknown"), {"research": "member"}),
                (("ml", "ml-leads"), {"research": "admin"}),
                (("ml",), {"research": "member"}),
                (("ops",), {"admin": "admin"}),
                ((), {}),
            ):
                assert await self.memberships(gate, liar, clock, *groups) == {**own, **teams}

    async def test_are_enough_where_no_accounts_are_made(self, tmp_path: Path) -> None:
        changes = {"teams": TEAMS, "make_accounts": False}
        async with liars_house(tmp_path, **changes) as (gate, liar, clock):
            assert await self.memberships(gate, liar, clock, "ops") == {"admin": "admin"}
            assert await self.memberships(gate, liar, clock) == 403

    async def test_of_a_strange_shape_are_none(self, tmp_path: Path) -> None:
        async with liars_house(tmp_path, teams=TEAMS) as (gate, liar, clock):
            for groups in ("ops", {"ops": True}, [["ops"]], [1], 7):
                assert (await told(gate, liar, clock, groups=groups)).status == 303
            rows = (await gate.client.get("/v1/admin/audit?action=member.follow")).json()["rows"]
            assert rows == []
