"""A25: two accounts. What one has, the other cannot see, change or end, whatever id he knows.

The test walks the route table: a route that takes an id and has no case here fails it. Each case
is asked four times: by its owner, who gets it; by another account, a person of another account
and with an id of nobody's, who are all told the same.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import pytest_asyncio

from inferd import ids as new_ids
from inferd.api.routes import Route
from inferd.api.table import ROUTES
from inferd.storage import jobs, webhook_calls
from inferd.storage.rows import JobRow
from inferd.storage.webhook_calls import CallRow
from tests.gateway import Client, Gateway, Response, echo_card, gateway
from tests.jwts import offline_jwt

CHAT = "/v1/chat/completions"
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
UNKNOWN = "tok_0000000000000000000000"

CATALOGUE = "a name of the catalogue, the same for all"
INSTALLATION = "of the installation: an account's admin gets 403"
CAPABILITY = "128 random bits in the URL are the credential"
NOT_STORED = "nothing is stored behind it: 404 for its owner too"
SECRET = "always 410, whatever stands there"
PROVIDER = "the name of a sign-in provider"
WITHOUT_CASE: dict[str, str] = {
    "POST /v1/inference/{rest}": CATALOGUE,
    "POST /v1/text-to-speech/{rest}": CATALOGUE,
    "GET /v1/openai/models/{rest}": CATALOGUE,
    "GET /v1/models/{rest}": CATALOGUE,
    "GET /models/{rest}": CATALOGUE,
    "GET /v1/images/{rest}": CAPABILITY,
    "GET /v1/openai/responses/{rest}": NOT_STORED,
    "DELETE /v1/openai/responses/{rest}": NOT_STORED,
    "GET /v1/responses/{rest}": NOT_STORED,
    "DELETE /v1/responses/{rest}": NOT_STORED,
    "POST /v1/responses": NOT_STORED,
    "POST /v1/openai/responses": NOT_STORED,
    "GET /v1/api-tokens/{rest}": SECRET,
    "DELETE /v1/api-tokens/{rest}": SECRET,
    "POST /v1/api-tokens/{rest}": SECRET,
    "GET /payment/usage/{rest}": SECRET,
    "GET /sign-in/{rest}": PROVIDER,
}
NO_IDS = {"stop_token_ids", "return_tokens_as_token_ids", "model_id"}
"""Fields that end like an id and are none."""


class Ids(NamedTuple):
    """What the owner has."""

    uid: str
    token_id: str
    token_name: str
    person_id: str
    session_id: str
    request_id: str
    video_id: str
    call_id: str
    voice_id: str
    jwt: str


NOBODYS = Ids(
    "acc_00000000000000000000",
    UNKNOWN,
    "no such name",
    "per_00000000000000000000",
    "ses_00000000000000000000",
    "R00000000000000000000000",
    "videos_0000000000000000",
    "R11111111111111111111111",
    "voice_00000000000000000000",
    "jwt:e30.e30.e30",
)


@dataclass
class Case:
    """One request about something that is somebody's. `{name}` stands for a field of Ids."""

    path: str
    body: Any = None
    stranger: int = 404
    """What everybody else gets."""
    owner: int = 200
    by_person: bool = False
    """Asked with the session of a person, not with a token."""
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def filled(self, ids: Ids) -> tuple[str, Any]:
        """The request about these."""
        return _fill(self.path, ids), _fill(self.body, ids)


CASES: dict[str, list[Case]] = {
    "GET /v1/api-tokens/id/{rest}": [Case("/v1/api-tokens/id/{token_id}")],
    "DELETE /v1/api-tokens/id/{rest}": [Case("/v1/api-tokens/id/{token_id}")],
    "POST /v1/api-tokens": [
        Case("/v1/api-tokens", {"name": "new", "person_id": "{person_id}"}, stranger=400)
    ],
    "GET /v1/openai/videos/{rest}": [
        Case("/v1/openai/videos/{video_id}"),
        Case("/v1/openai/videos/{video_id}/content"),
    ],
    "GET /v1/videos/{rest}": [
        Case("/v1/videos/{video_id}"),
        Case("/v1/videos/{video_id}/content"),
    ],
    "GET /v1/voices/{rest}": [Case("/v1/voices/{voice_id}")],
    "POST /v1/voices/{rest}": [Case("/v1/voices/{voice_id}/edit", {"name": "new"})],
    "DELETE /v1/voices/{rest}": [Case("/v1/voices/{voice_id}")],
    "GET /v1/webhooks/deliveries/{rest}": [Case("/v1/webhooks/deliveries/{call_id}")],
    "POST /v1/webhooks/deliveries/{rest}/resend": [
        Case("/v1/webhooks/deliveries/{call_id}/resend")
    ],
    "PATCH /v1/team/members/{rest}": [Case("/v1/team/members/{person_id}", {"role": "member"})],
    "DELETE /v1/team/members/{rest}": [Case("/v1/team/members/{person_id}")],
    "POST /v1/request-costs": [
        Case("/v1/request-costs", {"requestIds": ["{request_id}"]}, stranger=200)
    ],
    "POST /v1/scoped-jwt": [Case("/v1/scoped-jwt", {"api_key_name": "{token_name}"})],
    "GET /v1/scoped-jwt": [Case("/v1/scoped-jwt?jwtoken={jwt}")],
    "POST /v1/scoped-jwt/inspect": [Case("/v1/scoped-jwt/inspect", {"jwtoken": "{jwt}"})],
    "DELETE /v1/sessions/{rest}": [Case("/v1/sessions/{session_id}", by_person=True)],
    "POST /v1/session": [Case("/v1/session", {"account_id": "{uid}"}, by_person=True)],
    "PUT /v1/limits": [
        Case("/v1/limits", {"token_id": "{token_id}", "requests_per_minute": 5}),
        Case("/v1/limits", {"account_id": "{uid}", "token_id": "*"}),
    ],
    "POST /payment/key-limits": [
        Case("/payment/key-limits", {"token_id": "{token_id}", "limit": 0}),
    ],
    "GET /payment/usage/id/{rest}": [Case("/payment/usage/id/{token_id}")],
    "GET /v1/usage": [
        Case("/v1/usage?token={token_id}", stranger=200),
        Case("/v1/usage?account={uid}", stranger=403),
    ],
    "GET /payment/invoices/{rest}": [Case("/payment/invoices/MONTH?format=json", stranger=200)],
}


def key_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def takes_an_id(route: Route) -> bool:
    """It has one in its path, or a field of its body is called like one."""
    if "{rest}" in route.path:
        return True
    if route.takes is None:
        return False
    names = {one.encode_name for one in msgspec.structs.fields(route.takes)} - NO_IDS
    pattern = re.compile(r"(^|_)ids?$|Ids?$|token$|jwt|api_key")
    return any(pattern.search(name) for name in names)


def test_every_route_that_takes_an_id_has_a_case() -> None:
    known = CASES.keys() | WITHOUT_CASE.keys()
    missing = [key_of(r) for r in ROUTES if takes_an_id(r) and key_of(r) not in known]
    missing = [key for key in missing if " /v1/admin/" not in key]
    assert missing == [], "a route that takes an id needs a case, or a reason to have none"
    assert known <= {key_of(route) for route in ROUTES}, "a route is gone, its case is not"


@dataclass
class World:
    """Two accounts that have the same things."""

    gate: Gateway
    blue: Client
    blue_person: Client
    red: Client
    red_person: Client
    ids: Ids
    """Blue's."""


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    speaker = echo_card("test/speaker", task="text-to-speech", options={"clones": True})
    async with gateway(tmp_path, echo_card(), speaker) as gate:
        blue, blue_person, ids = await _account(gate, "blue")
        red, red_person, _ = await _account(gate, "red")
        yield World(gate, blue, blue_person, red, red_person, ids)


@pytest.mark.parametrize(
    ("key", "case"), [(key, case) for key, cases in CASES.items() for case in cases]
)
async def test_a_stranger_is_told_the_same_as_of_what_does_not_exist(
    world: World, key: str, case: Case
) -> None:
    method = key.partition(" ")[0]
    owner = world.blue_person if case.by_person else world.blue
    strangers = [world.red_person] if case.by_person else [world.red, world.red_person]
    about_nothing = [await _ask(one, method, case, NOBODYS) for one in strangers]
    foreign = [await _ask(one, method, case, world.ids) for one in strangers]
    for told, nothing in zip(foreign, about_nothing, strict=True):
        assert told.status == case.stranger, told.body
        assert _plain(told, world.ids) == _plain(nothing, NOBODYS)
        for own in (world.ids.token_name, "blue"):
            assert own.encode() not in told.body.replace(world.ids.jwt.encode(), b"")
    # And none of that did anything: what was asked about is still there, for whoever has it.
    answer = await _ask(owner, method, case, world.ids)
    assert answer.status == case.owner, answer.body
    assert _plain(answer, world.ids) != _plain(foreign[0], world.ids)


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.path.startswith("/v1/admin/")], ids=key_of
)
async def test_an_accounts_admin_reaches_no_other_account_as_the_installations(
    world: World, route: Route
) -> None:
    for one in (world.ids.uid, world.ids.token_id, "x"):
        path = route.path.replace("{rest}", one)
        for client in (world.red, world.red_person):
            assert (await client.call(route.method, path, b"{}")).status == 403


async def test_an_idempotency_key_is_each_accounts_own(world: World) -> None:
    headers = {"idempotency-key": "the same"}
    answers = [await one.post(CHAT, BODY, headers=headers) for one in (world.blue, world.red)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json()["id"] != answers[1].json()["id"]


async def test_lists_hold_what_is_ones_own(world: World) -> None:
    for path in (
        "/v1/api-tokens",
        "/v1/team",
        "/v1/teams",
        "/v1/sessions",
        "/v1/me",
        "/v1/me/emails",
        "/v1/me/rate_limit",
        "/v1/usage?by=token",
        "/payment/usage",
        "/payment/key-limits",
        "/payment/checklist",
        "/payment/config",
        "/v1/webhooks/deliveries",
        "/v1/voices",
    ):
        for client in (world.red, world.red_person):
            body = (await client.get(path)).body
            for one in world.ids:
                assert one.encode() not in body, path


async def _account(gate: Gateway, name: str) -> tuple[Client, Client, Ids]:
    """An account with two admins, a token, a session, a request and a film."""
    wish = {"display_name": name, "email": f"{name}@example.com"}
    made = (await gate.client.post("/v1/admin/accounts", wish)).json()
    uid, app = made["account"]["uid"], gate.client.app
    manager = Client(app, token=made["token"]["token"])
    members = "/v1/team/members"
    second = {"email": f"{name}-2@example.com", "role": "admin"}
    person_id = (await manager.post(members, second)).json()["person_id"]
    first = (await manager.get("/v1/team")).json()["members"][0]["person_id"]
    token_name = f"{name}s key"
    token = (await manager.post("/v1/api-tokens", {"name": token_name})).json()
    answer = await Client(app, token=token["token"]).post(CHAT, BODY)
    sessions = gate.services.sessions
    async with gate.services.database.writing() as connection:
        session = await sessions.begin(connection, first, "password", "")
        other = await sessions.begin(connection, first, "password", "")
        video_id = f"videos_of_{name}"
        await jobs.add(connection, _film(video_id, uid, await _blob(gate)))
        call = _call(uid, await _blob(gate), gate.services.ledger.gateway)
        await webhook_calls.add(connection, call)
    files = ["data:audio/wav;base64," + b64encode(b"RIFF----WAVEfmt " + bytes(40)).decode()]
    voice = (await manager.post("/v1/voices/add", {"name": name, "files": files})).json()
    jwt = offline_jwt(uid, token_name, token["token"], {"exp": int(time.time()) + 99})
    ids = Ids(
        uid,
        token["token_id"],
        token_name,
        person_id,
        other.row.id,
        answer.headers["x-request-id"],
        video_id,
        call.request_id,
        voice["voice_id"],
        jwt,
    )
    cookie = {"cookie": f"session={session.secret}", "origin": "http://here", "host": "here"}
    return manager, Client(app, token=None, headers=cookie), ids


async def _blob(gate: Gateway) -> str:
    return await gate.services.blobs.put(b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 100)


def _film(video_id: str, uid: str, blob: str) -> JobRow:
    return JobRow(
        id=video_id,
        account_id=uid,
        token_id="tok",
        request_id=f"R{video_id}",
        model="test/echo",
        request=b"",
        status="succeeded",
        result=blob,
        error=None,
        created_unix_ns=time.time_ns(),
        ended_unix_ns=time.time_ns(),
    )


def _call(uid: str, blob: str, gateway: str) -> CallRow:
    """Delivered; sent again, it leads nowhere."""
    return CallRow(
        request_id=new_ids.request_id(),
        account_id=uid,
        token_id="tok",
        jwt_id=None,
        jwt_limit_nanos=None,
        path="",
        query="",
        headers=b"",
        body=blob,
        answer=blob,
        webhook="http://127.0.0.1:1/",
        status="succeeded",
        created_unix_ns=time.time_ns(),
        ended_unix_ns=time.time_ns(),
        gateway=gateway,
        delivery="delivered",
        due_unix_ns=None,
        attempts=msgspec.msgpack.encode([]),
    )


async def _ask(client: Client, method: str, case: Case, ids: Ids) -> Response:
    path, body = case.filled(ids)
    path = path.replace("MONTH", time.strftime("%Y-%m", time.gmtime()))
    raw = b"" if body is None else msgspec.json.encode(body)
    return await client.call(method, path, raw)


def _fill(template: Any, ids: Ids) -> Any:
    if isinstance(template, str):
        return re.sub(r"\{(\w+)\}", lambda found: getattr(ids, found[1]), template)
    if isinstance(template, dict):
        return {name: _fill(value, ids) for name, value in template.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(template, list):
        return [_fill(value, ids) for value in template]  # pyright: ignore[reportUnknownVariableType]
    return template


def _plain(answer: Response, ids: Ids) -> bytes:
    """The body without the id that was asked about."""
    body = answer.body
    for one in ids:
        body = body.replace(one.encode(), b"ID")
    return body
