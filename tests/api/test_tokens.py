"""API tokens over the wire: what they may, from where, until when; who sees them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from inferd.access.tokens import TokenWish
from inferd.storage import people
from tests.accounts import join
from tests.gateway import Client, Gateway, echo_card, gateway

TOKENS = "/v1/api-tokens"
CHAT = "/v1/chat/completions"
RUN = "inference:run"
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


async def made(gate: Gateway, **fields: Any) -> dict[str, Any]:
    answer = await gate.client.post(TOKENS, {"name": f"t {time.time_ns()}", **fields})
    assert answer.status == 200, answer.body
    return answer.json()


def as_(gate: Gateway, token: str, **headers: str) -> Client:
    return Client(gate.client.app, token=token, headers=headers)


class TestCreate:
    async def test_the_answer_alone_holds_the_secret(self, gate: Gateway) -> None:
        token = await made(gate, name="ci")
        listed = (await gate.client.get(TOKENS)).json()
        shown = (await gate.client.get(f"{TOKENS}/id/{token['token_id']}")).json()
        assert shown == next(one for one in listed if one["name"] == "ci")
        assert shown["fragment"] == token["token"][-5:]
        assert token["token"] not in str(listed)
        assert (await as_(gate, token["token"]).post(CHAT, BODY)).status == 200

    async def test_a_name_is_taken_once_and_free_after_revocation(self, gate: Gateway) -> None:
        token = await made(gate, name="ci")
        assert (await gate.client.post(TOKENS, {"name": "ci"})).status == 409
        gone = await gate.client.call("DELETE", f"{TOKENS}/id/{token['token_id']}", b"")
        assert gone.status == 200
        await made(gate, name="ci")

    async def test_all_that_can_be_wished_for_is_kept(self, gate: Gateway) -> None:
        wish = {
            "name": "all",
            "expires_at": int(time.time()) + 100,
            "allowed_ips": ["10.0.0.0/8", "2001:db8::1"],
            "allowed_models": ["test/echo"],
            "monthly_limit": 0.1,
        }
        token = await made(gate, **wish)
        shown = (await gate.client.get(f"{TOKENS}/id/{token['token_id']}")).json()
        expected = {**wish, "allowed_ips": ["10.0.0.0/8", "2001:db8::1/128"]}
        assert {name: shown[name] for name in wish} == expected

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"name": ""}, 422),
            ({"name": "x" * 101}, 422),
            ({"name": "a\0b"}, 422),
            ({"name": "a\nb"}, 422),
            ({"scopes": ["root"]}, 422),
            ({"expires_at": 1}, 400),
            ({"expires_at": 2**63}, 422),
            ({"expires_at": -1}, 422),
            ({"expires_delta": 10, "expires_at": 9_000_000_000}, 400),
            ({"allowed_ips": []}, 422),
            ({"allowed_ips": ["10.0.0.1/8"]}, 400),
            ({"allowed_ips": ["'; drop table tokens; --"]}, 400),
            ({"allowed_ips": ["fe80::1%eth0/64"]}, 400),
            ({"allowed_models": ["a b/c"]}, 422),
            ({"allowed_models": ["test/echo"], "scopes": ["admin"]}, 400),
            ({"monthly_limit": -1}, 422),
            ({"monthly_limit": 1e10}, 422),
            ({"scopes": ["account:member"]}, 400),
            ({"person_id": "per_nobody"}, 400),
        ],
    )
    async def test_a_wrong_value_is_refused(
        self, gate: Gateway, fields: dict[str, Any], status: int
    ) -> None:
        answer = await gate.client.post(TOKENS, {"name": "t", **fields})
        assert answer.status == status, answer.body
        assert len((await gate.client.get(TOKENS)).json()) == 1

    async def test_who_manages_gives_no_scope_beyond_his_own_but_inference(
        self, gate: Gateway
    ) -> None:
        manager = as_(gate, (await made(gate, scopes=["account:admin"]))["token"])
        assert (await manager.post(CHAT, BODY)).status == 403
        assert (await manager.post(TOKENS, {"name": "a", "scopes": ["admin"]})).status == 403
        given = await manager.post(TOKENS, {"name": "a", "scopes": [RUN]})
        assert (await as_(gate, given.json()["token"]).post(CHAT, BODY)).status == 200
        assert (await manager.get("/metrics")).status == 403

    async def test_who_manages_nothing_makes_no_token(self, gate: Gateway) -> None:
        runner = as_(gate, (await made(gate))["token"])
        assert (await runner.post(TOKENS, {"name": "b"})).status == 403
        assert (await runner.get(TOKENS)).status == 403

    async def test_a_token_that_is_called_as_a_session_is_none(self, gate: Gateway) -> None:
        person = await join(gate, "sam", "admin")
        token = await made(gate, name="session", scopes=["account:admin"], person_id=person)
        assert (await as_(gate, token["token"]).get("/v1/sessions")).status == 403


class TestRestrictions:
    async def test_models(self, tmp_path: Path) -> None:
        cards = (echo_card(), echo_card("test/other"))
        async with gateway(tmp_path, *cards) as gate:
            held = as_(gate, (await made(gate, allowed_models=["test/other"]))["token"])
            refused = await held.post(CHAT, BODY)
            assert refused.status == 403
            assert "test/echo" in refused.json()["error"]["message"]
            assert (await held.post(CHAT, {**BODY, "model": "test/other"})).status == 200

    @pytest.mark.parametrize(
        ("allowed", "address", "status"),
        [
            (["10.0.0.0/8"], "10.255.0.1", 200),
            (["10.0.0.0/8"], "11.0.0.1", 403),
            (["10.0.0.0/8"], "::ffff:10.0.0.1", 200),
            (["2001:db8::/32"], "2001:db8:1::1", 200),
            (["2001:db8::/32"], "2001:db9::1", 403),
            (["10.0.0.0/8", "::1"], "::1", 200),
            (["0.0.0.0/0"], "::1", 403),
            (["0.0.0.0/0"], "", 403),
        ],
    )
    async def test_addresses(
        self, gate: Gateway, allowed: list[str], address: str, status: int
    ) -> None:
        token = await made(gate, allowed_ips=allowed)
        caller = await gate.services.tokens.authenticate(token["token"])
        assert caller.networks is not None
        client = Client(gate.client.app, token=token["token"], address=address)
        for _ in range(2):
            assert (await client.get("/v1/me")).status == status

    async def test_a_header_of_the_clients_own_moves_nobody(self, gate: Gateway) -> None:
        token = await made(gate, allowed_ips=["10.0.0.0/8"])
        client = Client(gate.client.app, token=token["token"], address="192.0.2.1")
        for name in ("x-forwarded-for", "forwarded", "x-real-ip"):
            answer = await client.get("/v1/me", headers={name: "10.0.0.1"})
            assert answer.status == 403


class TestMembers:
    @pytest.fixture
    async def members(self, gate: Gateway) -> dict[str, Client]:
        clients: dict[str, Client] = {}
        for name, scope in (("ann", "account:member"), ("ben", "account:member")):
            person = await join(gate, name, "member")
            token = await made(gate, name=name, scopes=[scope], person_id=person)
            clients[name] = as_(gate, token["token"])
        return clients

    async def test_each_sees_and_ends_his_own_alone(
        self, gate: Gateway, members: dict[str, Client]
    ) -> None:
        ann, ben = members["ann"], members["ben"]
        own = (await ann.post(TOKENS, {"name": "anns"})).json()
        assert own["person_id"] == "per_ann"
        assert [one["name"] for one in (await ann.get(TOKENS)).json()] == ["ann", "anns"]
        assert [one["name"] for one in (await ben.get(TOKENS)).json()] == ["ben"]
        at = f"{TOKENS}/id/{own['token_id']}"
        assert (await ben.get(at)).status == 404
        assert (await ben.call("DELETE", at, b"")).status == 404
        assert len((await gate.client.get(TOKENS)).json()) == 4
        assert (await ann.call("DELETE", at, b"")).status == 200

    async def test_a_member_makes_none_for_others_and_none_above_himself(
        self, members: dict[str, Client]
    ) -> None:
        ann = members["ann"]
        assert (await ann.post(TOKENS, {"name": "x", "person_id": "per_ben"})).status == 403
        for scope in ("account:admin", "admin"):
            assert (await ann.post(TOKENS, {"name": "x", "scopes": [scope]})).status == 403

    async def test_an_admins_token_shrinks_with_his_role_and_dies_with_his_membership(
        self, gate: Gateway
    ) -> None:
        person = await join(gate, "eve", "admin")
        token = await made(gate, scopes=["account:admin", "inference:run"], person_id=person)
        eve, services = as_(gate, token["token"]), gate.services
        assert len((await eve.get(TOKENS)).json()) == 2
        async with services.changes.writing() as change:
            await people.set_role(change.connection, gate.account_id, person, "member")
            change.touch("account", gate.account_id)
        assert (await eve.get(TOKENS)).status == 403
        assert (await eve.post(CHAT, BODY)).status == 200
        async with services.changes.writing() as change:
            await people.leave(change.connection, gate.account_id, person)
            change.touch("account", gate.account_id)
        assert (await eve.post(CHAT, BODY)).status == 401


class TestSecretsStayOut:
    async def test_a_secret_in_the_path_is_answered_410_and_never_logged(
        self, gate: Gateway, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        secret = (await made(gate))["token"]
        for method, path in (
            ("GET", f"{TOKENS}/{secret}"),
            ("DELETE", f"{TOKENS}/{secret}"),
            ("POST", f"{TOKENS}/{secret}/vercel_export"),
            ("GET", f"/payment/usage/{secret}"),
        ):
            answer = await gate.client.call(method, path, b"{}")
            assert answer.status == 410, path
            assert "URL" in answer.json()["detail"]["error"]
            assert secret.encode() not in answer.body
        # It also must not lie in what a scraper or a log keeps of paths that do not exist.
        assert (await gate.client.get(f"/v1/nothing/{secret}")).status == 404
        metrics = (await gate.client.get("/metrics")).body.decode()
        assert "inferd_" in metrics
        for kept in (caplog.text, metrics):
            assert secret not in kept
        # It was shown, and still works: nobody but its holder decides to revoke it.
        assert (await as_(gate, secret).get("/v1/me")).status == 200


async def test_a_token_read_before_its_revocation_is_not_remembered_after_it(
    gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up and the revocation cross: the caller is served once, and never again."""
    tokens = gate.services.tokens
    async with gate.services.changes.writing() as change:
        row, secret = await tokens.create_in(change, gate.account_id, TokenWish("crossing"))
    find = tokens._find  # pyright: ignore[reportPrivateUsage]

    async def slowly(secret: str, digest: bytes) -> Any:
        found = await find(secret, digest)
        await tokens.revoke(gate.account_id, row.id)
        return found

    monkeypatch.setattr(tokens, "_find", slowly)
    assert (await as_(gate, secret).get("/v1/me")).status == 200
    monkeypatch.undo()
    assert (await as_(gate, secret).get("/v1/me")).status == 401
