"""Scoped JWTs over the wire: made here or offline, narrowed, counted, ended with their token."""

from __future__ import annotations

import base64
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Client, Gateway, Response, echo_card, gateway
from tests.jwts import offline_jwt, scoped_jwt_of

AT = "/v1/scoped-jwt"
CHAT = "/v1/chat/completions"
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
HOUR = 3600


async def key(gate: Gateway, name: str = "key", **fields: Any) -> str:
    """A token's secret."""
    answer = await gate.client.post("/v1/api-tokens", {"name": name, **fields})
    assert answer.status == 200, answer.body
    return answer.json()["token"]


async def minted(gate: Gateway, **fields: Any) -> str:
    answer = await gate.client.post(AT, {"api_key_name": "key", **fields})
    assert answer.status == 200, answer.body
    return answer.json()["token"]


async def ask(gate: Gateway, jwt: str, **fields: Any) -> Response:
    return await Client(gate.client.app, token=jwt).post(CHAT, {**BODY, **fields})


async def spend(gate: Gateway, jwt: str) -> int:
    """Ask until the JWT can pay no more; how often it could."""
    served = 0
    while (answer := await ask(gate, jwt)).status == 200:
        served += 1
    assert answer.status == 402
    return served


def parts(jwt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, claims, _ = jwt.removeprefix("jwt:").split(".")
    return json.loads(_raw(head)), json.loads(_raw(claims))


def _raw(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


class TestMade:
    async def test_by_the_server_it_has_the_documented_shape_and_works(self, gate: Gateway) -> None:
        await key(gate, "schlüssel: blau")
        answer = await gate.client.post(
            AT, {"api_key_name": "schlüssel: blau", "expires_delta": HOUR, "models": ["test/echo"]}
        )
        jwt = answer.json()["token"]
        head, claims = parts(jwt)
        uid, _, name = head["kid"].rpartition(":")
        assert head == {"alg": "HS256", "kid": head["kid"], "typ": "JWT"}
        assert uid == claims["sub"] == (await gate.client.get("/v1/me")).json()["uid"]
        assert base64.b64decode(name).decode() == "schlüssel: blau"
        assert abs(claims["exp"] - time.time() - HOUR) < 60
        for _ in range(2):
            assert (await ask(gate, jwt)).status == 200

    @pytest.mark.parametrize("spelling", ["model", "models"])
    @pytest.mark.parametrize("names", ["test/echo", ["test/echo", "a/b"]])
    async def test_offline_it_works_the_same(
        self, gate: Gateway, spelling: str, names: object
    ) -> None:
        jwt = await scoped_jwt_of(gate, **{spelling: names})
        assert (await ask(gate, jwt)).status == 200

    async def test_offline_as_the_guide_says(self, gate: Gateway) -> None:
        guide = Path(__file__).parents[2] / "docs" / "guides" / "accounts.md"
        code = guide.read_text().split("```python\n")[1].split("```")[0]
        made: list[str] = []
        given = {"uid": gate.account_id, "token": await key(gate, "ci"), "print": made.append}
        exec(code.replace("HuggingFaceTB/SmolLM2-135M-Instruct", "test/echo"), given)
        assert (await ask(gate, made[0])).status == 200

    async def test_offline_with_a_token_that_lay_there_before_secrets_were_sealed(
        self, gate: Gateway
    ) -> None:
        """Such a token signs from its first use on."""
        secret = await key(gate)
        async with gate.services.database.writing() as connection:
            await connection.exec_driver_sql("UPDATE tokens SET sealed = NULL")
        claims = {"exp": int(time.time()) + HOUR}
        jwt = offline_jwt(gate.account_id, "key", secret, claims)
        assert (await ask(gate, jwt)).status == 401
        assert (await gate.client.post(AT, {"api_key_name": "key"})).status == 409
        assert (await ask(gate, secret)).status == 200
        later = offline_jwt(gate.account_id, "key", secret, {"exp": claims["exp"] + 1})
        assert (await ask(gate, later)).status == 200

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"api_key_name": "none"}, 404),
            ({"expires_delta": 0}, 422),
            ({"expires_delta": 366 * 86_400}, 422),
            ({"expires_at": 1}, 400),
            ({"expires_at": 10**15}, 400),
            ({"expires_delta": 5, "expires_at": 5}, 400),
            ({"models": []}, 422),
            ({"models": ["no slash"]}, 422),
            ({"spending_limit": -1}, 422),
            ({"spending_limit": "1"}, 422),
            ({"spending_limit": 1e300}, 422),
        ],
    )
    async def test_a_wrong_wish_is_refused(
        self, gate: Gateway, fields: dict[str, Any], status: int
    ) -> None:
        await key(gate)
        answer = await gate.client.post(AT, {"api_key_name": "key", **fields})
        assert answer.status == status, answer.body

    async def test_a_token_signs_for_itself_and_for_nobody_else(self, gate: Gateway) -> None:
        own = Client(gate.client.app, token=await key(gate))
        await key(gate, "other")
        assert (await own.post(AT, {"api_key_name": "key"})).status == 200
        assert (await own.post(AT, {"api_key_name": "other"})).status == 404


class TestNarrowed:
    async def test_to_models(self, tmp_path: Path) -> None:
        async with gateway(tmp_path, echo_card(), echo_card("test/other")) as gate:
            await key(gate, allowed_models=["test/echo"])
            narrow = await minted(gate, models=["test/other"])
            assert (await ask(gate, narrow, model="test/other")).status == 403
            assert (await ask(gate, narrow)).status == 403
            whole = await minted(gate)
            assert (await ask(gate, whole)).status == 200
            assert (await ask(gate, whole, model="test/other")).status == 403

    async def test_to_the_addresses_of_its_token(self, gate: Gateway) -> None:
        await key(gate, allowed_ips=["10.0.0.0/8"])
        jwt = await minted(gate)
        for address, status in (("10.0.0.1", 200), ("11.0.0.1", 403)):
            client = Client(gate.client.app, token=jwt, address=address)
            assert (await client.post(CHAT, BODY)).status == status

    async def test_its_token_pays_and_is_named_in_the_entry(self, gate: Gateway) -> None:
        await key(gate)
        assert (await ask(gate, await minted(gate))).status == 200
        usage = (await gate.client.get("/v1/usage?by=token")).json()
        assert len(usage["rows"]) == 1
        shown = (await gate.client.get("/v1/api-tokens")).json()
        named = next(one for one in shown if one["name"] == "key")
        assert usage["rows"][0]["key"] == named["token_id"]


class TestSpending:
    async def test_the_counter_is_the_jwts_own_and_its_end_is_402(self, gate: Gateway) -> None:
        await key(gate)
        cost = (await ask(gate, await minted(gate))).json()["usage"]["estimated_cost"]
        limit = 100 * cost
        jwt = await minted(gate, spending_limit=limit, models=["test/echo"])
        twin = await minted(gate, spending_limit=limit, models=["test/echo"])
        served = await spend(gate, jwt)
        assert 1 <= served <= 100
        info = (await gate.client.get(f"{AT}?jwtoken={jwt}")).json()
        assert info["models"] == ["test/echo"]
        assert info["spending_limit"] == pytest.approx(limit)
        assert info["spending_current"] == pytest.approx(served * cost)
        assert (await ask(gate, jwt)).status == 402
        assert (await ask(gate, twin)).status == 200

    async def test_a_limit_of_nothing_buys_nothing(self, gate: Gateway) -> None:
        await key(gate)
        assert (await ask(gate, await minted(gate, spending_limit=0))).status == 402
        assert (await ask(gate, await scoped_jwt_of(gate, spending_limit=0))).status == 402

    async def test_writing_it_differently_does_not_begin_the_counter_anew(
        self, gate: Gateway
    ) -> None:
        """The last character of a signature has bits that mean nothing."""
        await key(gate)
        cost = (await ask(gate, await minted(gate))).json()["usage"]["estimated_cost"]
        jwt = await minted(gate, spending_limit=100 * cost)
        await spend(gate, jwt)
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        for last in letters:
            assert (await ask(gate, jwt[:-1] + last)).status in (401, 402)
        for form in (jwt + "=", jwt + "==", jwt.replace(".", "=.", 1), f"jwt:{jwt}"):
            assert (await ask(gate, form)).status == 401


class TestInspected:
    async def test_either_form_tells_the_same_and_neither_is_logged(
        self, gate: Gateway, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        await key(gate)
        jwt = await minted(gate, expires_at=int(time.time()) + HOUR, spending_limit=1)
        by_query = await gate.client.get(f"{AT}?jwtoken={jwt}")
        by_body = await gate.client.post(f"{AT}/inspect", {"jwtoken": jwt})
        assert by_query.body == by_body.body
        assert by_query.json() == {
            "expires_at": parts(jwt)[1]["exp"],
            "models": None,
            "spending_limit": 1.0,
            "spending_current": 0.0,
        }
        for wrong in (f"{AT}?jwtoken={jwt}x", AT, f"{AT}?jwtoken="):
            assert (await gate.client.get(wrong)).status in (400, 404)
        assert jwt not in caplog.text
        assert jwt.rpartition(".")[2] not in caplog.text

    async def test_an_expired_one_is_still_told(self, gate: Gateway) -> None:
        jwt = await scoped_jwt_of(gate, exp=int(time.time()) - 5)
        assert (await ask(gate, jwt)).status == 401
        assert (await gate.client.get(f"{AT}?jwtoken={jwt}")).status == 200


class TestRevoked:
    async def test_its_token_ends_it_cold_or_warm(self, gate: Gateway) -> None:
        await key(gate)
        warm, cold = await minted(gate), await minted(gate)
        assert (await ask(gate, warm)).status == 200
        listed = (await gate.client.get("/v1/api-tokens")).json()
        token_id = next(one["token_id"] for one in listed if one["name"] == "key")
        await gate.client.call("DELETE", f"/v1/api-tokens/id/{token_id}", b"")
        assert [(await ask(gate, jwt)).status for jwt in (warm, cold)] == [401, 401]

    async def test_a_new_token_of_the_old_name_does_not_wake_it(self, gate: Gateway) -> None:
        await key(gate)
        jwt = await minted(gate)
        listed = (await gate.client.get("/v1/api-tokens")).json()
        token_id = next(one["token_id"] for one in listed if one["name"] == "key")
        await gate.client.call("DELETE", f"/v1/api-tokens/id/{token_id}", b"")
        await key(gate)
        assert (await ask(gate, jwt)).status == 401


async def test_a_warm_jwt_reads_no_database_and_verifies_nothing_again(
    gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    jwt = await scoped_jwt_of(gate)
    assert (await ask(gate, jwt)).status == 200

    def broken(*_: object, **__: object) -> Any:
        raise AssertionError("a warm path came here")

    tokens = gate.services.tokens
    monkeypatch.setattr("inferd.access.scoped_jwt.check", broken)
    monkeypatch.setattr(gate.services.database, "reading", broken)
    caller = tokens.known(jwt)
    assert caller is not None
    assert caller.jwt_id is not None
    assert await tokens.authenticate(jwt) == caller
    assert (await ask(gate, jwt)).status == 200
