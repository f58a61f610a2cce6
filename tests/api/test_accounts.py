"""Accounts and teams over the wire: what they say of themselves, who works in them, their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from inferd.storage import people
from tests.gateway import Client, Gateway, gateway

ACCOUNTS, ME, MEMBERS, TOKENS = "/v1/admin/accounts", "/v1/me", "/v1/team/members", "/v1/api-tokens"
CHAT = "/v1/chat/completions"
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


class Account(NamedTuple):
    """One that the operator made."""

    uid: str
    client: Client


async def made(gate: Gateway, display_name: str, **fields: Any) -> Account:
    answer = await gate.client.post(ACCOUNTS, {"display_name": display_name, **fields})
    assert answer.status == 200, answer.body
    told = answer.json()
    return Account(told["account"]["uid"], as_(gate, told["token"]["token"]))


def as_(gate: Gateway, token: str) -> Client:
    return Client(gate.client.app, token=token)


async def person(gate: Gateway, account: Account, name: str, **fields: Any) -> Client:
    """A member of the account, with a token of his own that manages what he may."""
    member = {"email": f"{name}@example.com", **fields}
    told = (await account.client.post(MEMBERS, member)).json()
    admin = fields.get("role") == "admin"
    scopes = ["account:admin" if admin else "account:member", "inference:run"]
    wish = {"name": name, "scopes": scopes, "person_id": told["person_id"]}
    answer = await account.client.post(TOKENS, wish)
    assert answer.status == 200, answer.body
    return as_(gate, answer.json()["token"])


async def delete(client: Client, path: str) -> int:
    return (await client.call("DELETE", path, b"")).status


async def patch(client: Client, path: str, body: bytes) -> int:
    return (await client.call("PATCH", path, body)).status


async def roles(account: Account) -> dict[str, str]:
    members = (await account.client.get("/v1/team")).json()["members"]
    return {one["name"]: one["role"] for one in members}


class TestMe:
    async def test_it_has_every_field_of_the_contract(self, gate: Gateway) -> None:
        me = (await gate.client.get(ME)).json()
        required = (
            "uid email email_verified account_setup display_name provider picture is_admin name "
            "first_name last_name country is_business_account company website title root_uid"
        )
        optional = (
            "require_email_verified can_access_agents can_access_sandboxes is_team_account "
            "is_team_owner team_role team_display_name is_team_upgrade_enabled vercel_connection "
            "google_linked mfa_enabled mfa_available show_signup_form checklist"
        )
        assert set(required.split()) | set(optional.split()) <= set(me)
        assert me["checklist"] is None
        checked = (await gate.client.get(f"{ME}?checklist=true")).json()["checklist"]
        assert checked == (await gate.client.get("/payment/checklist")).json()
        assert (checked["suspended"], checked["suspend_reason"]) == (False, None)

    async def test_command_line_tools_that_only_check_it_are_content(self, gate: Gateway) -> None:
        """deepctl asks for the versions, then shows its token here and wants 200."""
        anonymous = Client(gate.client.app, token=None)
        assert (await anonymous.get("/cli/version")).status == 200
        secret = gate.client.token or ""
        for headers in (
            {"authorization": f"bearer {secret}"},
            {"authorization": f"BEARER  {secret}"},
            {"x-api-key": secret},
            {"xi-api-key": secret},
        ):
            assert (await anonymous.get(ME, headers=headers)).status == 200
        for headers in ({}, {"authorization": secret}, {"x-api-key": secret + "x"}):
            assert (await anonymous.get(ME, headers=headers)).status == 401

    async def test_what_is_said_stays_and_what_is_not_said_too(self, gate: Gateway) -> None:
        account = await made(gate, "blue")
        for body in (
            b'{"first_name": "Ada", "company": "Engines", "email": "ada@example.com"}',
            b'{"display_name": "blue-2", "is_business_account": true}',
            b"{}",
        ):
            assert await patch(account.client, ME, body) == 200
        me = (await account.client.get(ME)).json()
        assert (me["first_name"], me["company"], me["display_name"]) == ("Ada", "Engines", "blue-2")
        assert me["is_business_account"] is True
        assert me["email_verified"] is False
        told = (await account.client.get(f"{ME}/emails")).json()
        assert told == {"emails": ["ada@example.com"]}

    async def test_null_clears_what_was_said(self, gate: Gateway) -> None:
        account = await made(gate, "blue")
        said = {
            "name": "Blue", "first_name": "Ada", "last_name": "L", "country": "DE", "title": "Dr",
            "country_code": "DE", "email": "ada@example.com", "is_business_account": True,
            "company": "Engines", "website": "https://example.com", "use_case": "u",
            "attribution": "a", "marketing_emails": True,
        }  # fmt: skip
        assert await patch(account.client, ME, json.dumps(said).encode()) == 200
        nulls = dict.fromkeys([*said, "display_name"])
        assert await patch(account.client, ME, json.dumps(nulls).encode()) == 200
        me = (await account.client.get(ME)).json()
        cleared = [
            name for name in said if name in me and name not in ("name", "is_business_account")
        ]
        assert [me[name] for name in cleared] == [None] * 7
        assert (me["display_name"], me["name"], me["is_business_account"]) == (
            "blue",
            "blue",
            False,
        )
        async with gate.services.database.reading() as connection:
            query = text("SELECT profile FROM accounts WHERE id = :id")
            assert (await connection.execute(query, {"id": account.uid})).scalar() == "{}"

    @pytest.mark.parametrize(
        "body",
        [
            b'{"display_name": ""}',
            b'{"display_name": "-a"}',
            b'{"display_name": "a-"}',
            b'{"display_name": "a--b"}',
            b'{"display_name": "a b"}',
            b'{"display_name": "\xc3\xa9"}',
            b'{"display_name": "' + b"a" * 40 + b'"}',
            b'{"email": "no address"}',
            b'{"email": "a@b\\nc"}',
            b'{"country_code": "DEU"}',
            b'{"website": "javascript:alert(1)"}',
            b'{"company": "' + b"a" * 101 + b'"}',
            b'{"name": "a\\u0000b"}',
            b'{"is_business_account": "yes"}',
        ],
    )
    async def test_a_wrong_value_is_422_in_one_sentence(self, gate: Gateway, body: bytes) -> None:
        answer = await gate.client.call("PATCH", ME, body)
        assert answer.status == 422
        assert isinstance(answer.json()["detail"]["error"], str)

    async def test_a_name_is_one_accounts_alone(self, gate: Gateway) -> None:
        blue, red = await made(gate, "blue"), await made(gate, "red")
        assert await patch(red.client, ME, b'{"display_name": "blue"}') == 409
        assert (await gate.client.post(ACCOUNTS, {"display_name": "blue"})).status == 409
        assert await delete(blue.client, ME) == 200
        assert await patch(red.client, ME, b'{"display_name": "blue"}') == 200

    async def test_a_name_is_one_accounts_in_any_case(self, gate: Gateway) -> None:
        """Nobody looks like the installation's own account, or like another team."""
        blue = await made(gate, "blue", email="boss@example.com")
        boss = await person(gate, blue, "ann", role="admin")
        for taken in ("Admin", "ADMIN", "Blue", "BLUE"):
            assert (await gate.client.post(ACCOUNTS, {"display_name": taken})).status == 409
            assert (await boss.post("/v1/teams", {"display_name": taken})).status == 409
        red = await made(gate, "red")
        for taken in (b"aDMIN", b"bLUE"):
            named = b'{"display_name": "%b"}' % taken
            assert await patch(red.client, ME, named) == 409
            at = f"{ME}/team_display_name"
            assert (await red.client.call("POST", at, named)).status == 409
        # Its own name may be written anew.
        assert await patch(blue.client, ME, b'{"display_name": "BLUE"}') == 200

    async def test_only_a_team_has_a_team_name(self, gate: Gateway) -> None:
        team, alone = await made(gate, "blue"), await made(gate, "red", kind="personal")
        at = f"{ME}/team_display_name"
        assert (await team.client.post(at, {"display_name": "sky"})).status == 200
        assert (await team.client.get(ME)).json()["team_display_name"] == "sky"
        assert (await alone.client.post(at, {"display_name": "sun"})).status == 409

    async def test_an_inference_token_reads_it_and_changes_nothing(self, gate: Gateway) -> None:
        account = await made(gate, "blue")
        told = (await account.client.post(TOKENS, {"name": "run"})).json()
        runner = as_(gate, told["token"])
        assert (await runner.get(ME)).status == 200
        assert await patch(runner, ME, b'{"company": "x"}') == 403
        assert await delete(runner, ME) == 403

    async def test_the_installations_account_keeps_its_name_and_its_life(
        self, gate: Gateway
    ) -> None:
        assert await patch(gate.client, ME, b'{"display_name": "boss"}') == 409
        assert await delete(gate.client, ME) == 409
        at = f"{ACCOUNTS}/{gate.account_id}"
        assert (await gate.client.post(f"{at}/suspend", {"reason": "no"})).status == 409
        assert await delete(gate.client, at) == 409


class TestDeleted:
    async def test_tokens_warm_and_cold_end_and_what_was_spent_stays(self, gate: Gateway) -> None:
        account = await made(gate, "blue")
        cold = as_(gate, (await account.client.post(TOKENS, {"name": "t"})).json()["token"])
        request_id = (await account.client.post(CHAT, BODY)).headers["x-request-id"]
        assert (await account.client.call("DELETE", ME, b"")).json()["uid"] == account.uid
        assert [(await one.get(ME)).status for one in (account.client, cold)] == [401, 401]
        assert (await gate.client.get(f"{ACCOUNTS}/{account.uid}")).status == 404
        async with gate.services.database.reading() as connection:
            query = text("SELECT account_id FROM entries WHERE request_id = :id")
            found = (await connection.execute(query, {"id": request_id})).scalar()
        assert found == account.uid

    async def test_reports_go_on_to_name_a_team_and_not_a_person(self, gate: Gateway) -> None:
        for kind in ("team", "personal"):
            account = await made(gate, f"was-{kind}", kind=kind)
            assert (await account.client.post(CHAT, BODY)).status == 200
            assert await delete(gate.client, f"{ACCOUNTS}/{account.uid}") == 200
            # Its name is free.
            again = await made(gate, f"was-{kind}", kind=kind)
            rows = (await gate.client.get("/v1/usage?by=account&account=all")).json()["rows"]
            named = {row["key"]: row["name"] for row in rows}[account.uid]
            left = (
                f"was-team (deleted {account.uid})" if kind == "team" else f"deleted {account.uid}"
            )
            assert named == left
            assert again.uid != account.uid

    async def test_a_team_takes_with_it_who_has_no_other_account(self, gate: Gateway) -> None:
        own = await made(gate, "ada", kind="personal", email="ada@example.com")
        team = await made(gate, "blue", email="boss@example.com")
        await team.client.post(MEMBERS, {"email": "ada@example.com"})
        assert await patch(team.client, ME, b'{"email": "team@example.com"}') == 200
        assert await delete(team.client, ME) == 200
        async with gate.services.database.reading() as connection:
            assert await people.by_email(connection, "boss@example.com") is None
            assert await people.by_email(connection, "ada@example.com") is not None
            query = text("SELECT profile FROM accounts WHERE id = :id")
            assert (await connection.execute(query, {"id": team.uid})).scalar() == "{}"
        assert (await own.client.get(ME)).status == 200

    async def test_a_person_who_deletes_his_account_is_forgotten(self, gate: Gateway) -> None:
        own = await made(gate, "ada", kind="personal", email="ada@example.com", name="Ada")
        team = await made(gate, "blue", email="boss@example.com")
        await team.client.post(MEMBERS, {"email": "ada@example.com"})
        assert await roles(team) == {"boss": "admin", "Ada": "member"}
        assert await delete(own.client, ME) == 200
        assert await roles(team) == {"boss": "admin"}
        async with gate.services.database.reading() as connection:
            assert await people.by_email(connection, "ada@example.com") is None

    async def test_the_last_admin_of_a_team_hands_it_over_first(self, gate: Gateway) -> None:
        own = await made(gate, "ada", kind="personal", email="ada@example.com")
        team = await made(gate, "blue", email="ada@example.com")
        assert await delete(own.client, ME) == 409
        assert (await own.client.get(ME)).status == 200
        await team.client.post(MEMBERS, {"email": "ben@example.com", "role": "admin"})
        assert await delete(own.client, ME) == 200


class TestSuspended:
    async def test_it_pays_for_nothing_and_still_reads(self, gate: Gateway) -> None:
        account = await made(gate, "blue")
        told = (await account.client.post(TOKENS, {"name": "t"})).json()
        await account.client.post("/v1/scoped-jwt", {"api_key_name": "t"})
        jwt = (await account.client.post("/v1/scoped-jwt", {"api_key_name": "t"})).json()["token"]
        clients = [account.client, as_(gate, told["token"]), as_(gate, jwt)]
        assert [(await one.post(CHAT, BODY)).status for one in clients] == [200, 200, 200]
        at = f"{ACCOUNTS}/{account.uid}"
        reason = {"reason": "The invoice of October is open."}
        assert (await gate.client.post(f"{at}/suspend", reason)).status == 200
        for one in clients:
            answer = await one.post(CHAT, BODY)
            assert answer.status == 402
            assert "The invoice of October is open." in answer.json()["error"]["message"]
        embed = {"model": "test/echo", "prompt": "hi"}
        assert (await account.client.post("/v1/completions", embed)).status == 402
        for path in (ME, "/v1/usage", TOKENS):
            assert (await account.client.get(path)).status == 200
        assert (await account.client.get(ME)).json()["suspended"] == reason["reason"]
        assert (await gate.client.post(f"{at}/unsuspend", {})).status == 200
        assert [(await one.post(CHAT, BODY)).status for one in clients] == [200, 200, 200]

    async def test_it_needs_a_reason_and_an_account(self, gate: Gateway) -> None:
        account = await made(gate, "blue")
        assert (await gate.client.post(f"{ACCOUNTS}/{account.uid}/suspend", {})).status == 422
        unknown = f"{ACCOUNTS}/acc_unknown"
        assert (await gate.client.post(f"{unknown}/suspend", {"reason": "x"})).status == 404
        assert (await gate.client.post(f"{unknown}/unsuspend", {})).status == 404
        assert (await gate.client.get(unknown)).status == 404
        assert await delete(gate.client, unknown) == 404


class TestTeam:
    async def test_a_person_makes_a_team_and_is_its_admin(self, gate: Gateway) -> None:
        account = await made(gate, "blue", email="boss@example.com")
        ann = await person(gate, account, "ann")
        assert (await account.client.post("/v1/teams", {"display_name": "x"})).status == 403
        team = (await ann.post("/v1/teams", {"display_name": "ann-team"})).json()
        assert (team["role"], team["kind"]) == ("admin", "team")
        places = (await ann.get("/v1/teams")).json()["teams"]
        assert [(one["display_name"], one["role"]) for one in places] == [
            ("blue", "member"),
            ("ann-team", "admin"),
        ]

    async def test_members_manage_nobody_and_may_leave(self, gate: Gateway) -> None:
        account = await made(gate, "blue", email="boss@example.com")
        ann, ben = await person(gate, account, "ann"), await person(gate, account, "ben")
        ids = {
            one["name"]: one["person_id"] for one in (await ann.get("/v1/team")).json()["members"]
        }
        assert (await ann.post(MEMBERS, {"email": "x@example.com"})).status == 403
        assert await patch(ann, f"{MEMBERS}/{ids['ann']}", b'{"role": "admin"}') == 403
        assert await delete(ann, f"{MEMBERS}/{ids['ben']}") == 403
        assert await delete(ann, f"{MEMBERS}/{ids['ann']}") == 200
        assert (await ann.get(ME)).status == 401
        assert (await ben.get(ME)).status == 200
        assert await roles(account) == {"boss": "admin", "ben": "member"}

    async def test_one_admin_is_always_left(self, gate: Gateway) -> None:
        account = await made(gate, "blue", email="boss@example.com")
        members = (await account.client.get("/v1/team")).json()["members"]
        boss = f"{MEMBERS}/{members[0]['person_id']}"
        assert await patch(account.client, boss, b'{"role": "member"}') == 409
        assert await delete(account.client, boss) == 409
        await account.client.post(MEMBERS, {"email": "ann@example.com", "role": "admin"})
        assert await patch(account.client, boss, b'{"role": "member"}') == 200
        assert await roles(account) == {"boss": "member", "ann": "admin"}

    async def test_what_does_not_exist_is_404_and_twice_is_409(self, gate: Gateway) -> None:
        account = await made(gate, "blue", email="boss@example.com")
        assert (await account.client.post(MEMBERS, {"email": "Boss@Example.com"})).status == 409
        assert await patch(account.client, f"{MEMBERS}/per_x", b'{"role": "admin"}') == 404
        assert await delete(account.client, f"{MEMBERS}/per_x") == 404
        for wrong in ({}, {"email": "x"}, {"email": "a@b.c", "role": "owner"}):
            assert (await account.client.post(MEMBERS, wrong)).status == 422

    async def test_a_personal_account_has_no_members(self, gate: Gateway) -> None:
        account = await made(gate, "ada", kind="personal", email="ada@example.com")
        assert (await account.client.post(MEMBERS, {"email": "x@example.com"})).status == 409

    async def test_who_manages_the_operators_account_alone_makes_no_operators(
        self, gate: Gateway
    ) -> None:
        wish = {"name": "accountant", "scopes": ["account:admin"]}
        manager = as_(gate, (await gate.client.post(TOKENS, wish)).json()["token"])
        friend = {"email": "friend@example.com", "role": "admin"}
        assert (await manager.post(MEMBERS, friend)).status == 403
        told = (await gate.client.post(MEMBERS, friend)).json()
        at = f"{MEMBERS}/{told['person_id']}"
        assert await patch(manager, at, b'{"role": "admin"}') == 403
        assert await delete(manager, at) == 403


class TestAudit:
    async def test_every_change_is_written_down_and_no_secret(self, gate: Gateway) -> None:
        account = await made(gate, "blue", email="boss@example.com")
        ann = await person(gate, account, "ann", role="admin")
        secret = (await ann.post(TOKENS, {"name": "t"})).json()["token"]
        await ann.post("/v1/scoped-jwt", {"api_key_name": "t"})
        await gate.client.post(f"{ACCOUNTS}/{account.uid}/suspend", {"reason": "x"})
        await delete(gate.client, f"{ACCOUNTS}/{account.uid}")
        async with gate.services.database.reading() as connection:
            rows = (await connection.exec_driver_sql("SELECT action, detail FROM audit")).all()
        actions = [row[0] for row in rows]
        for action in (
            "account.create",
            "token.create",
            "member.add",
            "scoped_jwt.create",
            "account.suspend",
            "account.delete",
        ):
            assert action in actions
        assert secret not in str(rows)


async def test_a_change_on_one_gateway_is_heard_before_its_answer(tmp_path: Path) -> None:
    """In one process. Between processes the feed of changes carries the same news."""
    async with gateway(tmp_path) as gate:
        account = await made(gate, "blue")
        assert (await account.client.post(CHAT, BODY)).status == 200
        for _ in range(3):
            at = f"{ACCOUNTS}/{account.uid}"
            await gate.client.post(f"{at}/suspend", {"reason": "x"})
            assert (await account.client.post(CHAT, BODY)).status == 402
            await gate.client.post(f"{at}/unsuspend", {})
            assert (await account.client.post(CHAT, BODY)).status == 200
