"""Whatever changes something for somebody leaves a row that says who did it, from where."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import insert

from inferd.api.services import ApiOptions
from inferd.api.table import ROUTES
from inferd.storage.tables_budgets import gateways
from tests.gateway import ADMIN_TOKEN, Client, Gateway, Response, echo_card, gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHANGING = {
    f"{route.method} {route.path}"
    for route in ROUTES
    if route.method not in ("GET", "HEAD") and route.access != "inference"
}
NO_CHANGE = {
    "POST /v1/request-costs",
    "POST /v1/usage/verify",
    "POST /v1/scoped-jwt/inspect",
    # Deprecated forms, and what this installation has not: refused.
    "DELETE /v1/api-tokens/{rest}",
    "POST /v1/api-tokens/{rest}",
    "POST /payment/funds",
    "POST /payment/topup",
    "POST /payment/payment-methods/setup",
    "POST /payment/deepstart/application",
    # A wish, which is a row itself; what an admin makes of it is audited.
    "POST /v1/me/rate_limit/request",
    # What was answered is sent once more.
    "POST /v1/webhooks/deliveries/{rest}/resend",
    # Where a person looks, not what anybody may.
    "POST /v1/session",
}
"""Nothing that anybody has is different after these."""


class Steps:
    """One call of each changing route, over one installation, in an order that works."""

    def __init__(self, gate: Gateway) -> None:
        self.gate = gate
        self.admin = gate.client
        self.n = 0

    def new(self, word: str) -> str:
        self.n += 1
        return f"{word}{self.n}"

    async def send(self, method: str, path: str, body: Any = None) -> Response:
        return await self.admin.call(method, path, msgspec.json.encode(body or {}))

    async def token(self) -> dict[str, Any]:
        return (await self.send("POST", "/v1/api-tokens", {"name": self.new("token")})).json()

    async def account(self) -> str:
        body = {"display_name": self.new("account"), "kind": "team"}
        told = (await self.send("POST", "/v1/admin/accounts", body)).json()
        return str(told["account"]["uid"])

    async def team(self) -> Client:
        """A team's admin, with a token of his own."""
        account = await self.account()
        path = f"/v1/admin/accounts/{account}/tokens"
        body = {"name": "all", "scopes": ["inference:run", "account:admin"]}
        told = (await self.send("POST", path, body)).json()
        return Client(self.gate.client.app, token=told["token"])

    async def person(self) -> Client:
        """The admin, signed in."""
        reset = await self.send("POST", "/v1/admin/password", {"login": "admin"})
        headers = {"host": "h", "origin": "http://h"}
        stranger = Client(self.gate.client.app, token=None, headers=headers)
        told = await stranger.post("/v1/sign-in", reset.json())
        cookie = told.headers["set-cookie"].partition(";")[0]
        return Client(
            self.gate.client.app,
            token=None,
            headers={**headers, "cookie": cookie, "x-password": reset.json()["password"]},
        )


Step = Callable[[Steps], Awaitable[Response]]
STEPS: dict[str, tuple[str, Step]] = {}
"""Route → the action of its row, and how it is called."""


def step(route: str, action: str) -> Callable[[Step], Step]:
    def keep(made: Step) -> Step:
        STEPS[route] = (action, made)
        return made

    return keep


@step("POST /v1/api-tokens", "token.create")
async def _(s: Steps) -> Response:
    return await s.send("POST", "/v1/api-tokens", {"name": s.new("token")})


@step("DELETE /v1/api-tokens/id/{rest}", "token.revoke")
async def _(s: Steps) -> Response:
    return await s.send("DELETE", f"/v1/api-tokens/id/{(await s.token())['token_id']}")


@step("DELETE /v1/admin/tokens/{rest}", "token.revoke")
async def _(s: Steps) -> Response:
    return await s.send("DELETE", f"/v1/admin/tokens/{(await s.token())['token_id']}")


@step("POST /v1/scoped-jwt", "scoped_jwt.create")
async def _(s: Steps) -> Response:
    body = {"api_key_name": (await s.token())["name"], "expires_delta": 60}
    return await s.send("POST", "/v1/scoped-jwt", body)


@step("PATCH /v1/me", "account.describe")
async def _(s: Steps) -> Response:
    return await s.send("PATCH", "/v1/me", {"company": "Example"})


@step("DELETE /v1/me", "account.delete")
async def _(s: Steps) -> Response:
    return await (await s.team()).call("DELETE", "/v1/me", b"")


@step("POST /v1/me/team_display_name", "account.describe")
async def _(s: Steps) -> Response:
    return await (await s.team()).post(
        "/v1/me/team_display_name", {"display_name": s.new("renamed")}
    )


@step("POST /v1/teams", "account.create")
async def _(s: Steps) -> Response:
    return await (await s.person()).post("/v1/teams", {"display_name": s.new("team")})


async def member(s: Steps) -> tuple[Client, str]:
    team = await s.team()
    told = await team.post("/v1/team/members", {"email": f"{s.new('m')}@example.com"})
    return team, str(told.json()["person_id"])


@step("POST /v1/team/members", "member.add")
async def _(s: Steps) -> Response:
    return await (await s.team()).post("/v1/team/members", {"email": f"{s.new('m')}@example.com"})


@step("PATCH /v1/team/members/{rest}", "member.role")
async def _(s: Steps) -> Response:
    team, person = await member(s)
    body = msgspec.json.encode({"role": "admin"})
    return await team.call("PATCH", f"/v1/team/members/{person}", body)


@step("DELETE /v1/team/members/{rest}", "member.remove")
async def _(s: Steps) -> Response:
    team, person = await member(s)
    return await team.call("DELETE", f"/v1/team/members/{person}", b"")


@step("POST /v1/admin/accounts", "account.create")
async def _(s: Steps) -> Response:
    body = {"display_name": s.new("account"), "kind": "team"}
    return await s.send("POST", "/v1/admin/accounts", body)


@step("DELETE /v1/admin/accounts/{rest}", "account.delete")
async def _(s: Steps) -> Response:
    return await s.send("DELETE", f"/v1/admin/accounts/{await s.account()}")


@step("POST /v1/admin/accounts/{rest}/suspend", "account.suspend")
async def _(s: Steps) -> Response:
    path = f"/v1/admin/accounts/{await s.account()}/suspend"
    return await s.send("POST", path, {"reason": "unpaid"})


@step("POST /v1/admin/accounts/{rest}/unsuspend", "account.unsuspend")
async def _(s: Steps) -> Response:
    account = await s.account()
    await s.send("POST", f"/v1/admin/accounts/{account}/suspend", {"reason": "unpaid"})
    return await s.send("POST", f"/v1/admin/accounts/{account}/unsuspend")


@step("POST /v1/admin/accounts/{rest}/tokens", "token.create")
async def _(s: Steps) -> Response:
    return await s.send(
        "POST", f"/v1/admin/accounts/{await s.account()}/tokens", {"name": s.new("token")}
    )


@step("POST /v1/admin/accounts/{rest}/credit", "account.credit")
async def _(s: Steps) -> Response:
    path = f"/v1/admin/accounts/{await s.account()}/credit"
    return await s.send("POST", path, {"usd": "5"})


@step("PUT /v1/limits", "limits.set")
async def _(s: Steps) -> Response:
    body = {"token_id": (await s.token())["token_id"], "requests_per_minute": 9000}
    return await s.send("PUT", "/v1/limits", body)


@step("PUT /v1/admin/limits", "limits.set")
async def _(s: Steps) -> Response:
    body = {"account_id": s.gate.account_id, "requests_per_minute": 9000}
    return await s.send("PUT", "/v1/admin/limits", body)


@step("POST /v1/admin/limit-requests/{rest}", "limit_request.resolve")
async def _(s: Steps) -> Response:
    asked = {"rate_limit": 500, "reason": "growth"}
    await s.send("POST", "/v1/me/rate_limit/request", asked)
    waiting: Any = (await s.admin.get("/v1/admin/limit-requests")).json()
    path = f"/v1/admin/limit-requests/{waiting['requests'][0]['id']}"
    return await s.send("POST", path, {"grant": False, "answer": "no"})


@step("POST /v1/admin/prices", "price.set")
async def _(s: Steps) -> Response:
    body = {"model": "test/echo", "price": {"input": "2", "output": "3"}}
    return await s.send("POST", "/v1/admin/prices", body)


@step("DELETE /v1/admin/prices/{rest}", "price.reset")
async def _(s: Steps) -> Response:
    return await s.send("DELETE", "/v1/admin/prices/test/echo")


@step("DELETE /v1/admin/gateways/{rest}", "gateway.forget")
async def _(s: Steps) -> Response:
    async with s.gate.services.database.writing() as connection:
        row = {"id": "gw_lost.0", "epoch_unix_ns": 1, "seen_unix_ns": 1}
        await connection.execute(insert(gateways).values(row))
    return await s.send("DELETE", "/v1/admin/gateways/gw_lost.0")


@step("POST /payment/config", "account.monthly_limit")
async def _(s: Steps) -> Response:
    return await s.send("POST", "/payment/config", {"limit": 100})


@step("POST /payment/key-limits", "token.monthly_limit")
async def _(s: Steps) -> Response:
    body = {"token_id": (await s.token())["token_id"], "limit": 10}
    return await s.send("POST", "/payment/key-limits", body)


@step("POST /v1/sign-in", "session.begin")
async def _(s: Steps) -> Response:
    reset = await s.send("POST", "/v1/admin/password", {"login": "admin"})
    return await Client(s.gate.client.app, token=None).post("/v1/sign-in", reset.json())


@step("POST /sign-in", "session.begin")
async def _(s: Steps) -> Response:
    reset = (await s.send("POST", "/v1/admin/password", {"login": "admin"})).json()
    form = f"login=admin&password={reset['password']}".encode()
    return await Client(s.gate.client.app, token=None).post("/sign-in", form)


@step("POST /v1/sign-out", "session.end")
async def _(s: Steps) -> Response:
    return await (await s.person()).post("/v1/sign-out", {})


@step("POST /sign-out", "session.end")
async def _(s: Steps) -> Response:
    return await (await s.person()).post("/sign-out", b"")


@step("DELETE /v1/sessions/{rest}", "session.end")
async def _(s: Steps) -> Response:
    person = await s.person()
    shown = (await person.get("/v1/session")).json()
    return await person.call("DELETE", f"/v1/sessions/{shown['session_id']}", b"")


@step("POST /v1/voices/{rest}", "voice.add")
async def _(s: Steps) -> Response:
    return await added_voice(s)


@step("DELETE /v1/voices/{rest}", "voice.remove")
async def _(s: Steps) -> Response:
    voice = (await added_voice(s)).json()["voice_id"]
    renamed = await s.send("POST", f"/v1/voices/{voice}/edit", {"name": "Bea"})
    row = await newest(s.gate)
    assert (row["action"], row["target"]) == ("voice.rename", voice)
    assert row["request_id"] == renamed.headers["x-request-id"]
    return await s.admin.call("DELETE", f"/v1/voices/{voice}", b"")


async def added_voice(s: Steps) -> Response:
    recording = b64encode(b"RIFF----WAVEfmt " + bytes(40)).decode()
    return await s.send("POST", "/v1/voices/add", {"name": s.new("voice"), "files": recording})


@step("POST /v1/admin/password", "password.reset")
async def _(s: Steps) -> Response:
    return await s.send("POST", "/v1/admin/password", {"login": "admin"})


@step("PUT /v1/password", "password.change")
async def _(s: Steps) -> Response:
    person = await s.person()
    body = {"current": person.headers["x-password"], "new": "correct horse battery"}
    return await person.call("PUT", "/v1/password", msgspec.json.encode(body))


@step("POST /command/sign-in", "token.create")
async def _(s: Steps) -> Response:
    person = await s.person()
    login_id = s.new("0123456789abcdef0123456789abcdef")
    await person.post("/command/sign-in", f"login_id={login_id}".encode())
    return await person.get(f"/github/cli/login?login_id={login_id}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def steps(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Steps]:
    path: Path = tmp_path_factory.mktemp("audit")
    speaker = echo_card("test/speaker", task="text-to-speech", options={"clones": True})
    async with gateway(path, echo_card(), speaker) as gate:
        yield Steps(gate)


async def newest(gate: Gateway) -> dict[str, Any]:
    rows = (await gate.client.get("/v1/admin/audit?limit=1")).json()["rows"]
    return rows[0] if rows else {"id": "", "action": ""}


async def test_every_changing_route_is_here() -> None:
    assert set(STEPS) == CHANGING - NO_CHANGE
    assert NO_CHANGE <= CHANGING


@pytest.mark.parametrize("route", sorted(STEPS))
async def test_a_change_leaves_a_row(steps: Steps, route: str) -> None:
    action, call = STEPS[route]
    answer = await call(steps)
    assert answer.status in (200, 201, 204, 303), answer.body
    rows = (await steps.admin.get("/v1/admin/audit?limit=5")).json()["rows"]
    ours = [row for row in rows if row["request_id"] == answer.headers["x-request-id"]]
    assert action in [row["action"] for row in ours]
    assert all(row["account_id"] for row in ours)
    assert ADMIN_TOKEN not in str(rows)


async def test_a_refused_change_leaves_none(steps: Steps) -> None:
    before = await newest(steps.gate)
    token = (await steps.token())["token"]
    after_token = await newest(steps.gate)
    assert after_token != before
    weak = Client(steps.gate.client.app, token=token)
    assert (await weak.post("/v1/api-tokens", {"name": "x"})).status == 403
    assert (await steps.send("POST", "/v1/api-tokens", {"name": ""})).status >= 400
    assert (await steps.send("DELETE", "/v1/api-tokens/id/tok_none")).status == 404
    assert await newest(steps.gate) == after_token


async def test_a_row_says_from_where_through_trusted_proxies_alone(tmp_path: Path) -> None:
    options = ApiOptions(trusted_proxies=(ip_network("10.0.0.0/8"),))
    async with gateway(tmp_path, options=options) as gate:
        for peer, address in (("10.0.0.1", "198.51.100.7"), ("203.0.113.5", "203.0.113.5")):
            gate.client.address = peer
            forwarded = {"x-forwarded-for": "127.0.0.1, 198.51.100.7"}
            body = {"name": peer}
            await gate.client.post("/v1/api-tokens", body, headers=forwarded)
            assert (await newest(gate))["address"] == address


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "before=" + "a" * 200])
async def test_a_strange_page_is_refused(steps: Steps, query: str) -> None:
    assert (await steps.admin.get(f"/v1/admin/audit?{query}")).status == 400
