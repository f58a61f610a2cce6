"""Every route of the table, called by those who may not: nothing answers but what is public."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from inferd.access.caller import ACCOUNT_ADMIN, INFERENCE_RUN
from inferd.api.routes import Route
from inferd.api.services import ApiOptions
from inferd.api.table import ROUTES
from inferd.storage import accounts
from inferd.storage.rows import AccountRow
from tests.gateway import ADMIN_TOKEN, Client, Gateway, Response, gateway
from tests.hostile.attack import Shape, faults_of, leaks, shape_at

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "test/echo"
CLOSED = [route for route in ROUTES if route.access != "public"]
OPEN = [route for route in ROUTES if route.access == "public"]

MALFORMED = (
    "",
    "Bearer",
    "Bearer ",
    "Bearer  \t",
    "bearer null",
    "Bearer undefined",
    "Basic YWRtaW46YWRtaW4=",
    "Token {token}",
    "Bearer{token}",
    "Bearer {token}x",
    "Bearer {token},{token}",
    "Bearer {half}",
    "Bearer {token}\x00",
    "Bearer ' OR '1'='1' --",
    "Bearer x' UNION SELECT digest FROM tokens --",
    "Bearer %",
    "Bearer *",
    "Bearer jwt:eyJhbGciOiJub25lIn0.eyJhZG1pbiI6dHJ1ZX0.",
    "Bearer " + "a" * 60_000,
)
"""What stands in the authorization header; the token itself would be right."""


@dataclass
class House:
    """A gateway without a public catalogue, and a token that was revoked."""

    gate: Gateway
    revoked: str
    inference: str
    foreign: str
    """Another account's, which manages that account."""

    async def call(self, route: Route, path: str = "", **headers: str) -> Response:
        """Call a route with these headers and no other credential."""
        client = Client(self.gate.client.app, token=None)
        shown = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.call(route.method, path or concrete(route), b"{}", headers=shown)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    path: Path = tmp_path_factory.mktemp("routes")
    async with gateway(path, options=ApiOptions(public_catalogue=False)) as gate:
        tokens, account = gate.services.tokens, gate.account_id
        row, revoked = await tokens.create(account, "revoked", (INFERENCE_RUN,))
        await tokens.authenticate(revoked)
        await tokens.revoke(account, row.id)
        _, inference = await tokens.create(account, "inference", (INFERENCE_RUN,))
        row = AccountRow("acc_foreign", "foreign", 1, None)
        async with gate.services.database.writing() as connection:
            await accounts.add(connection, row)
        _, foreign = await tokens.create(row.id, "all", (INFERENCE_RUN, ACCOUNT_ADMIN))
        yield House(gate, revoked, inference, foreign)


def concrete(route: Route) -> str:
    """A path of the route."""
    end = "{rest}"
    kept = route.path.removesuffix(end)
    # In the middle it is one segment.
    return kept.replace(end, "acc_1") + (MODEL if kept != route.path else "")


def named(routes: list[Route]) -> pytest.MarkDecorator:
    """A test for each route."""
    ids = [f"{route.method} {route.path}" for route in routes]
    return pytest.mark.parametrize("route", routes, ids=ids)


def check_refusal(route: Route, answer: Response, shape: Shape | None = None) -> None:
    """401 in the dialect of the route, and not a word more."""
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not faults_of(shape or route.shape, 401, answer.body)
    assert not leaks(answer.body, ADMIN_TOKEN)


@named(CLOSED)
class TestAClosedRoute:
    async def test_wants_a_token(self, house: House, route: Route) -> None:
        check_refusal(route, await house.call(route))

    async def test_knows_a_revoked_token(self, house: House, route: Route) -> None:
        check_refusal(route, await house.call(route, authorization=f"Bearer {house.revoked}"))
        check_refusal(route, await house.call(route, x_api_key=house.revoked))

    async def test_knows_a_malformed_token(self, house: House, route: Route) -> None:
        half = ADMIN_TOKEN[: len(ADMIN_TOKEN) // 2]
        for value in MALFORMED:
            shown = value.replace("{token}", ADMIN_TOKEN).replace("{half}", half)
            check_refusal(route, await house.call(route, authorization=shown))

    async def test_reads_no_token_from_the_query(self, house: House, route: Route) -> None:
        names = ("token", "api_key", "key", "access_token", "authorization", "session")
        for name in names:
            path = f"{concrete(route)}?{name}={ADMIN_TOKEN}"
            check_refusal(route, await house.call(route, path))

    async def test_reads_no_token_from_other_headers(self, house: House, route: Route) -> None:
        for name in ("x_token", "token", "api_key", "proxy_authorization", "x_auth_token"):
            check_refusal(route, await house.call(route, **{name: ADMIN_TOKEN}))
            check_refusal(route, await house.call(route, **{name: f"Bearer {ADMIN_TOKEN}"}))

    async def test_believes_no_proxy(self, house: House, route: Route) -> None:
        for name in ("x_forwarded_for", "x_real_ip", "x_forwarded_user", "x_remote_user"):
            check_refusal(route, await house.call(route, **{name: "127.0.0.1"}))

    async def test_takes_a_cookie_from_its_own_site_only(self, house: House, route: Route) -> None:
        cookie = f"session={ADMIN_TOKEN}"
        for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example"):
            answer = await house.call(route, cookie=cookie, origin=origin, host="127.0.0.1")
            assert answer.status == 403

    async def test_is_not_found_by_another_spelling(self, house: House, route: Route) -> None:
        path = concrete(route)
        prefix = "{rest}" in route.path
        spellings = [path.upper(), f"/{path}", path.replace("/", "//"), path.replace("/", "\\")]
        spellings += [path.replace("/v1/", "/V1/"), path.replace("/v1/", "/v1//"), f"/.{path}"]
        spellings += [f"/health/..{path}", path.replace("/v1/", "/v1/./"), f"http://x{path}"]
        spellings += (
            [] if prefix else [f"{path}/", f"{path}.", f"{path}%00", f"{path};x", f"{path} "]
        )
        for spelling in spellings:
            answer = await house.call(route, spelling)
            assert answer.status in (401, 404, 405)
            assert not faults_of(shape_at(route.method, spelling), answer.status, answer.body)


@named([route for route in ROUTES if route.access == "admin"])
async def test_an_admins_route_refuses_who_may_less(house: House, route: Route) -> None:
    for secret in (house.inference, house.foreign):
        answer = await house.call(route, authorization=f"Bearer {secret}")
        assert answer.status == 403
        assert not faults_of(route.shape, 403, answer.body)


@named([route for route in ROUTES if route.access in ("member", "account-admin")])
async def test_a_managers_route_refuses_who_may_only_infer(house: House, route: Route) -> None:
    answer = await house.call(route, authorization=f"Bearer {house.inference}")
    assert answer.status == 403
    assert not faults_of(route.shape, 403, answer.body)


OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override", "x-original-method")


class TestMethodOverrides:
    """A header or a field that names another method is nothing but a header or a field."""

    @pytest.mark.parametrize("header", OVERRIDES)
    async def test_open_no_closed_route(self, house: House, header: str) -> None:
        for route in CLOSED:
            for method in ("GET", "POST"):
                client = Client(house.gate.client.app, token=None)
                shown = {header: route.method}
                answer = await client.call(method, concrete(route), b"{}", headers=shown)
                assert answer.status in (401, 404, 405), route

    @pytest.mark.parametrize("header", OVERRIDES)
    async def test_change_nothing_for_an_admin_either(self, house: House, header: str) -> None:
        row, _ = await house.gate.services.tokens.create(
            house.gate.account_id, f"kept-{header}", (INFERENCE_RUN,)
        )
        path = f"/v1/api-tokens/id/{row.id}"
        for method, target in (("GET", path), ("GET", f"{path}?_method=DELETE"), ("POST", path)):
            await house.gate.client.call(method, target, b"{}", headers={header: "DELETE"})
        assert (await house.gate.client.get(path)).status == 200

    async def test_a_path_in_a_header_is_not_the_path(self, house: House) -> None:
        for header in ("x-original-url", "x-rewrite-url", "x-forwarded-path", "x-forwarded-uri"):
            client = Client(house.gate.client.app, token=None)
            answer = await client.get("/health", headers={header: "/v1/status"})
            assert set(answer.json()) == {"status", "version"}
            answer = await client.get("/v1/status", headers={header: "/health"})
            assert answer.status == 401


@named(OPEN)
async def test_an_open_route_tells_nothing_of_anybody(house: House, route: Route) -> None:
    answer = await house.call(route)
    assert answer.status in (200, 303, 400, 401, 403, 404, 422)
    assert house.gate.account_id.encode() not in answer.body
    assert not leaks(answer.body, ADMIN_TOKEN)


@pytest.mark.parametrize("path", sorted({concrete(route) for route in ROUTES}))
async def test_a_method_without_a_route_is_refused(house: House, path: str) -> None:
    known = {route.method for route in ROUTES if concrete(route) == path}
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "FOO"):
        if method in known:
            continue
        answer = await Client(house.gate.client.app, token=None).call(method, path, b"{}")
        assert answer.status in (401, 404, 405), method
        assert not faults_of(shape_at(method, path), answer.status, answer.body)


async def test_head_tells_no_more_than_get(house: House) -> None:
    for route in CLOSED:
        if route.method == "GET":
            client = Client(house.gate.client.app, token=None)
            assert (await client.call("HEAD", concrete(route), b"")).status == 401


class TestQueries:
    """Query strings of the routes that read one."""

    @pytest.mark.parametrize(
        "query",
        [
            "by=' OR 1=1 --",
            "by=model; DROP TABLE entries",
            "by=model%00",
            "by=(SELECT%20digest%20FROM%20tokens)",
            "from=%C2%B2",
            "from=%D9%A1",
            "from=1e9",
            "from=-1",
            "from=9" + "9" * 5000,
            "to=0x10",
            "to=NaN",
            "to=%20%201",
            "to=1;1",
            "from=%FF%FE",
            "by=" + "a" * 60_000,
        ],
    )
    async def test_usage_refuses_what_it_does_not_know(self, house: House, query: str) -> None:
        answer = await house.gate.client.get(f"/v1/usage?{query}")
        assert answer.status == 400
        assert not faults_of("native", 400, answer.body)
        assert not leaks(answer.body, ADMIN_TOKEN, sent=query.encode())

    async def test_sixty_thousand_fields_are_too_many(self, house: House) -> None:
        answer = await house.gate.client.get("/v1/usage?" + "a&" * 30_000 + "b=1&" * 8000)
        assert answer.status == 400

    @pytest.mark.parametrize(
        "id_", ["' OR 1=1 --", "%", "..", "../../x", "tok_%00", "tok_\x00", "*", "a" * 60_000]
    )
    async def test_a_token_of_a_strange_id_is_not_there(self, house: House, id_: str) -> None:
        for method in ("GET", "DELETE"):
            answer = await house.gate.client.call(method, f"/v1/api-tokens/id/{id_}", b"")
            assert answer.status == 404
            assert not faults_of("native", 404, answer.body)

    @pytest.mark.parametrize("filter_", ["' OR 1=1", "with_meta%00", "%FF", "a" * 60_000])
    async def test_a_catalogue_ignores_a_strange_filter(self, house: House, filter_: str) -> None:
        answer = await house.gate.client.get(f"/v1/openai/models?filter={filter_}")
        assert answer.status in (200, 400)

    @pytest.mark.parametrize("route", ["/v1/models/", "/v1/openai/models/", "/models/"])
    async def test_a_model_of_a_strange_name_is_not_there(self, house: House, route: str) -> None:
        names = ("../../etc/passwd", "' OR 1=1", "test/echo\x00", "test/echo/", "/test/echo", "%2e")
        names += ("<script>", "test/echo/schema", "test/echo/../echo", "a" * 60_000, "\u202etest")
        for name in names:
            answer = await house.gate.client.get(route + name)
            assert answer.status == 404, name[:40]
            assert not faults_of(shape_at("GET", route + name), 404, answer.body)
            assert not leaks(answer.body, sent=name.encode())

    async def test_a_stored_response_is_nobodys(self, house: House) -> None:
        for id_ in ("resp_1", "../../x", "' OR 1=1 --", "a" * 60_000):
            for method in ("GET", "DELETE"):
                answer = await house.gate.client.call(method, f"/v1/responses/{id_}", b"")
                assert answer.status == 404
                assert not faults_of("openai", 404, answer.body)

    async def test_the_page_of_documents_repeats_no_markup(self, house: House) -> None:
        for host in ('"><script>alert(1)</script>', "evil.example'onload='x", "\x00<b>"):
            answer = await house.gate.client.get("/docs", headers={"host": host})
            assert b"<script>alert" not in answer.body
            assert b"<b>" not in answer.body
            assert b"'onload='" not in answer.body


async def test_metrics_name_no_secret(house: House) -> None:
    await house.gate.client.post("/v1/inference/test/echo", {"input": "a", "user": "alice"})
    told = await house.gate.client.get("/metrics")
    for secret in (ADMIN_TOKEN, house.inference, house.gate.account_id, "alice", "tok_"):
        assert secret not in told.body.decode()
