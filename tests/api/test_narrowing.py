"""What a token makes is at most what it is: later, from elsewhere, with more money is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from inferd.clock import ManualClock
from tests.gateway import Client, Gateway, Response, gateway
from tests.jwts import offline_jwt

TOKENS, JWT = "/v1/api-tokens", "/v1/scoped-jwt"
CHAT = "/v1/chat/completions"
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
INSIDE, OUTSIDE = "10.1.2.3", "192.0.2.1"


async def made(gate: Gateway, maker: Client, **fields: Any) -> dict[str, Any]:
    answer = await maker.post(TOKENS, {"name": f"t {time.time_ns()}", **fields})
    assert answer.status == 200, answer.body
    return answer.json()


async def manager(gate: Gateway, **fields: Any) -> Client:
    """A managing token with restrictions, used from an address that it allows."""
    scopes = ["account:admin", "inference:run"]
    token = await made(gate, gate.client, name="manager", scopes=scopes, **fields)
    return Client(gate.client.app, token=token["token"], address=INSIDE)


def refused(answer: Response, word: str) -> bool:
    return answer.status == 403 and word in answer.json()["detail"]["error"]


class TestTokens:
    async def test_one_ends_no_later_than_its_maker(self, gate: Gateway) -> None:
        ends = int(time.time()) + 1000
        maker = await manager(gate, expires_at=ends)
        assert (await made(gate, maker))["expires_at"] == ends
        assert (await made(gate, maker, expires_at=ends - 1))["expires_at"] == ends - 1
        for wider in ({"expires_at": ends + 1}, {"expires_delta": 2000}):
            assert refused(await maker.post(TOKENS, {"name": "x", **wider}), "expires")

    async def test_one_works_from_nowhere_else(self, gate: Gateway) -> None:
        maker = await manager(gate, allowed_ips=["10.0.0.0/9", "10.128.0.0/9", "2001:db8::/32"])
        token = await made(gate, maker)
        assert token["allowed_ips"] == ["10.0.0.0/9", "10.128.0.0/9", "2001:db8::/32"]
        for address, status in ((INSIDE, 200), (OUTSIDE, 403)):
            child = Client(gate.client.app, token=token["token"], address=address)
            assert (await child.post(CHAT, BODY)).status == status
        # Two neighbours are one network.
        narrow = await made(gate, maker, allowed_ips=["10.0.0.0/8", "2001:db8:1::/48"])
        assert narrow["allowed_ips"] == ["10.0.0.0/8", "2001:db8:1::/48"]
        for wider in (["0.0.0.0/0"], ["10.1.2.3", OUTSIDE], ["::/0"]):
            answer = await maker.post(TOKENS, {"name": "x", "allowed_ips": wider})
            assert refused(answer, "10.0.0.0/9")

    @pytest.mark.parametrize("limit", [0, 5])
    async def test_one_with_a_monthly_limit_makes_none(self, gate: Gateway, limit: float) -> None:
        maker = await manager(gate, monthly_limit=limit)
        for wish in ({"name": "x"}, {"name": "x", "monthly_limit": 0}):
            assert refused(await maker.post(TOKENS, wish), "monthly limit")

    async def test_neither_does_an_installations_admin_for_another_account(
        self, gate: Gateway
    ) -> None:
        ends = int(time.time()) + 1000
        token = await made(gate, gate.client, name="a", scopes=["admin"], expires_at=ends)
        maker = Client(gate.client.app, token=token["token"])
        made_for = await maker.post("/v1/admin/accounts", {"display_name": "blue"})
        uid = made_for.json()["account"]["uid"]
        assert made_for.json()["token"]["expires_at"] == ends
        at = f"/v1/admin/accounts/{uid}/tokens"
        assert refused(await maker.post(at, {"name": "x", "expires_at": ends + 1}), "expires")

    async def test_who_is_not_restricted_restricts_nobody(self, gate: Gateway) -> None:
        token = await made(gate, await manager(gate))
        assert (token["expires_at"], token["allowed_ips"]) == (None, None)


class TestJwts:
    async def test_one_ends_with_the_token_that_signed_it(self, tmp_path: Path) -> None:
        clock = ManualClock(time.time_ns())
        async with gateway(tmp_path, clock=clock) as gate:
            now = clock.unix_ns() // 1_000_000_000
            token = await made(gate, gate.client, name="key", expires_at=now + 100)
            key = Client(gate.client.app, token=token["token"])
            asked = await key.post(JWT, {"api_key_name": "key", "expires_delta": 3600})
            own = offline_jwt(gate.account_id, "key", token["token"], {"exp": now + 3600})
            jwts = [asked.json()["token"], own]
            for expected, warm in ((200, True), (401, True), (401, False)):
                for jwt in jwts:
                    client = Client(gate.client.app, token=jwt)
                    assert (await client.post(CHAT, BODY)).status == expected, warm
                clock.advance(101 if expected == 200 else 0)

    async def test_one_keeps_to_its_tokens_addresses_and_budget(self, gate: Gateway) -> None:
        token = await made(
            gate, gate.client, name="key", allowed_ips=["10.0.0.0/8"], monthly_limit=0
        )
        key = Client(gate.client.app, token=token["token"], address=INSIDE)
        asked = await key.post(JWT, {"api_key_name": "key", "spending_limit": 5})
        for address, status in ((INSIDE, 402), (OUTSIDE, 403)):
            client = Client(gate.client.app, token=asked.json()["token"], address=address)
            assert (await client.post(CHAT, BODY)).status == status

    async def test_one_makes_nothing(self, gate: Gateway) -> None:
        maker = await manager(gate)
        asked = await maker.post(JWT, {"api_key_name": "manager"})
        jwt = Client(gate.client.app, token=asked.json()["token"], address=INSIDE)
        for path, body in ((TOKENS, {"name": "x"}), (JWT, {"api_key_name": "manager"})):
            assert (await jwt.post(path, body)).status == 403


class TestSigningWithAnotherToken:
    async def test_ends_no_later_than_the_token_that_asks(self, gate: Gateway) -> None:
        ends = int(time.time()) + 1000
        maker = await manager(gate, expires_at=ends)
        await made(gate, gate.client, name="wide")
        absent = await maker.post(JWT, {"api_key_name": "wide"})
        shown = await gate.client.post(f"{JWT}/inspect", {"jwtoken": absent.json()["token"]})
        assert shown.json()["expires_at"] == ends
        later = {"api_key_name": "wide", "expires_at": ends + 1}
        assert refused(await maker.post(JWT, later), "expires")

    async def test_needs_a_token_that_works_from_nowhere_else(self, gate: Gateway) -> None:
        maker = await manager(gate, allowed_ips=["10.0.0.0/8"])
        await made(gate, gate.client, name="wide")
        await made(gate, gate.client, name="narrow", allowed_ips=["10.1.0.0/16"])
        assert refused(await maker.post(JWT, {"api_key_name": "wide"}), "addresses")
        assert (await maker.post(JWT, {"api_key_name": "narrow"})).status == 200

    async def test_is_not_for_a_token_with_a_monthly_limit(self, gate: Gateway) -> None:
        maker = await manager(gate, monthly_limit=5)
        await made(gate, gate.client, name="wide")
        assert refused(await maker.post(JWT, {"api_key_name": "wide"}), "monthly limit")
        assert (await maker.post(JWT, {"api_key_name": "manager"})).status == 200
