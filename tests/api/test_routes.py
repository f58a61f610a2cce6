"""The route table: nothing is open but what says so, and no path does anything unexpected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inferd.access.scopes import SCOPES
from inferd.api.routes import NEEDS, Route
from inferd.api.services import ApiOptions
from inferd.api.table import ROUTES
from tests.gateway import Client, Gateway, gateway
from tests.jwts import scoped_jwt_of

SIGN_IN = {
    "/sign-in",
    "/sign-in/{rest}",
    "/sign-out",
    "/v1/sign-in",
    "/command/sign-in",
    "/github/login",
    "/google/login",
    "/okta/login",
    "/github/cli/login",
}
PUBLIC = {"/health", "/cli/version", "/v1/images/{rest}"} | SIGN_IN
CATALOGUE = {
    "/v1/openai/models",
    "/v1/models",
    "/v1/openai/models/{rest}",
    "/v1/models/{rest}",
    "/models/list",
    "/models/featured",
    "/models/lora/list",
    "/models/{rest}",
}
ADMIN = {"/metrics", "/v1/status", "/v1/usage/verify"}
"""And everything under /v1/admin/."""


def concrete(path: str) -> str:
    """A path of the route; only at its end may what is named hold a slash."""
    return re.sub("{rest}$", "test/echo", path).replace("{rest}", "one")


def test_the_public_routes_are_these_and_no_others() -> None:
    assert {route.path for route in ROUTES if route.access == "public"} == PUBLIC
    assert {route.path for route in ROUTES if route.access == "catalogue"} == CATALOGUE
    under = {route.path for route in ROUTES if route.path.startswith("/v1/admin/")}
    assert {route.path for route in ROUTES if route.access == "admin"} == ADMIN | under


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
class TestEveryRoute:
    async def test_without_a_token_only_the_public_ones_answer(
        self, tmp_path: Path, route: Route
    ) -> None:
        method, path, access = route.method, concrete(route.path), route.access
        async with gateway(tmp_path, options=ApiOptions(public_catalogue=False)) as running:
            for token in (None, "wrong"):
                answer = await Client(running.client.app, token=token).call(method, path, b"{}")
                # Whoever signs in without a password is told 401 as well.
                if path not in SIGN_IN:
                    assert (answer.status == 401) is (access != "public")

    async def test_a_token_reaches_no_route_whose_scope_it_lacks(
        self, gate: Gateway, route: Route
    ) -> None:
        method, path = route.method, concrete(route.path)
        for scope in SCOPES:
            _, secret = await gate.services.tokens.create(gate.account_id, scope, (scope,))
            caller = await gate.services.tokens.authenticate(secret)
            answer = await Client(gate.client.app, token=secret).call(method, path, b"{}")
            needs = NEEDS.get(route.access)
            assert answer.status == 403 or needs is None or caller.may(needs), scope

    async def test_a_scoped_jwt_reaches_inference_alone(self, gate: Gateway, route: Route) -> None:
        method, path, access = route.method, concrete(route.path), route.access
        jwt = await scoped_jwt_of(gate)
        answer = await Client(gate.client.app, token=jwt).call(method, path, b"{}")
        closed = access not in ("public", "catalogue", "inference")
        assert not closed or answer.status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1//chat/completions",
        "/V1/chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions.",
        "/v1/openai",
        "/v1/inference",
        "/v1/inference/",
        "/models/",
        "/metrics/",
        "/debug",
        "/config",
        "/invocations",
    ],
)
async def test_paths_that_are_not_in_the_table_do_not_exist(gate: Gateway, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = await Client(gate.client.app, token=None).call(method, path, b"{}")
        assert answer.status == 404
        assert answer.json() == {"detail": "Not Found"}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "GET", "TRACE", "FOO"])
async def test_other_methods_are_refused(gate: Gateway, method: str) -> None:
    answer = await gate.client.call(method, "/v1/chat/completions", b"{}")
    assert answer.status == 405


async def test_a_method_override_is_not_honoured(gate: Gateway) -> None:
    headers = {"x-http-method-override": "DELETE"}
    answer = await gate.client.get("/v1/api-tokens", headers=headers)
    assert answer.status == 200


async def test_the_catalogue_in_both_dialects(gate: Gateway) -> None:
    stranger = Client(gate.client.app, token=None)
    openai = (await stranger.get("/v1/openai/models?filter=with_meta")).json()
    assert openai["data"][0]["id"] == "test/echo"
    assert openai["data"][0]["metadata"]["pricing"]["input_tokens"] == 1.0
    assert (await stranger.get("/v1/models/test/echo")).json()["object"] == "model"
    native = (await stranger.get("/models/list")).json()
    assert native[0]["model_name"] == "test/echo"
    assert native[0]["pricing"]["cents_per_input_token"] == pytest.approx(1e-4)
    assert native[0]["pricing"]["rate_per_input_token_cached"] == 0.5
    details = (await stranger.get("/models/test/echo")).json()
    assert details["type"] == "text-generation"
    assert {"version", "curl_inv", "cmdline_inv", "txt_docs", "out_example", "out_docs"} <= set(
        details
    )
    assert (await stranger.get("/v1/models/test/unknown")).status == 404


async def test_health_metrics_docs_and_the_document_answer(gate: Gateway) -> None:
    assert (await Client(gate.client.app, token=None).get("/health")).json()["status"] == "ok"
    await gate.client.post("/v1/inference/test/echo", {"input": "a b"})
    metrics = (await gate.client.get("/metrics")).body.decode()
    assert 'inferd_requests_total{dialect="native",model="test/echo"' in metrics
    assert 'inferd_slots{model="test/echo"} 8.0' in metrics
    page = await gate.client.get("/docs")
    assert b"/v1/inference/{name}" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    document = (await gate.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert len(document["paths"]) == len({route.path for route in ROUTES})


class TestTokens:
    async def test_a_secret_is_shown_once_and_masked_afterwards(self, gate: Gateway) -> None:
        made = (await gate.client.post("/v1/api-tokens", {"name": "ci"})).json()
        assert made["token"].startswith("ifd_")
        listed = await gate.client.get("/v1/api-tokens")
        assert made["token"].encode() not in listed.body
        (one,) = [token for token in listed.json() if token["token_id"] == made["token_id"]]
        assert one["fragment"] == made["token"][-5:]
        shown = await gate.client.get(f"/v1/api-tokens/id/{made['token_id']}")
        assert shown.json()["name"] == "ci"

    async def test_a_name_is_unique_in_the_account(self, gate: Gateway) -> None:
        assert (await gate.client.post("/v1/api-tokens", {"name": "ci"})).status == 200
        assert (await gate.client.post("/v1/api-tokens", {"name": "ci"})).status == 409

    async def test_revoking_over_the_wire_works_at_once(self, gate: Gateway) -> None:
        made = (await gate.client.post("/v1/api-tokens", {"name": "ci"})).json()
        client = Client(gate.client.app, token=made["token"])
        assert (await client.get("/v1/usage")).status == 200
        path = f"/v1/api-tokens/id/{made['token_id']}"
        assert (await gate.client.call("DELETE", path, b"")).json() == {}
        assert (await client.get("/v1/usage")).status == 401
        assert (await gate.client.call("DELETE", path, b"")).status == 404


class TestUsage:
    async def test_the_report_sums_what_was_billed(self, gate: Gateway) -> None:
        for _ in range(3):
            await gate.client.post("/v1/inference/test/echo", {"input": "a b", "user": "u"})
        for by in ("model", "token", "day", "month", "end_user"):
            report = (await gate.client.get(f"/v1/usage?by={by}")).json()
            (row,) = report["rows"]
            assert row["requests"] == 3
            assert row["cost_nanos"] == report["total_cost_nanos"] > 0

    async def test_verification_finds_nothing_wrong(self, gate: Gateway) -> None:
        await gate.client.post("/v1/inference/test/echo", {"input": "a b"})
        told = (await gate.client.post("/v1/usage/verify", {})).json()
        assert told == {"entries": 1, "count": 0, "differences": []}

    @pytest.mark.parametrize("query", ["by=sql", "from=yesterday", "to=NaN"])
    async def test_a_wrong_query_is_refused(self, gate: Gateway, query: str) -> None:
        assert (await gate.client.get(f"/v1/usage?{query}")).status == 400
