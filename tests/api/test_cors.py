"""Which other sites' pages may call, and with what."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inferd.api.services import ApiOptions
from inferd.api.table import ROUTES
from tests.gateway import Client, gateway

OURS = "https://app.example"
THEIRS = "https://evil.example"
ASKS = {"origin": OURS, "access-control-request-method": "POST"}


def options(*origins: str) -> ApiOptions:
    return ApiOptions(cors_origins=origins)


async def test_every_route_answers_an_allowed_sites_preflight(tmp_path: Path) -> None:
    async with gateway(tmp_path, options=options(OURS)) as gate:
        stranger = Client(gate.client.app, token=None)
        for route in ROUTES:
            # Only at the end of a path may it hold a slash.
            path = re.sub("{rest}$", "a/b", route.path).replace("{rest}", "a")
            asked = {**ASKS, "access-control-request-headers": "authorization,x-stainless-os"}
            answer = await stranger.call("OPTIONS", path, b"", headers=asked)
            assert answer.status == 200, path
            assert answer.body == b""
            assert answer.headers["access-control-allow-origin"] == OURS
            assert route.method in answer.headers["access-control-allow-methods"].split(", ")
            allowed = answer.headers["access-control-allow-headers"]
            assert allowed == "authorization,x-stainless-os"
            assert "access-control-allow-credentials" not in answer.headers


async def test_answers_and_refusals_can_be_read_by_an_allowed_site(tmp_path: Path) -> None:
    async with gateway(tmp_path, options=options(OURS)) as gate:
        for client, status in ((gate.client, 200), (Client(gate.client.app, token=None), 401)):
            answer = await client.get("/v1/me", headers={"origin": OURS})
            assert answer.status == status
            assert answer.headers["access-control-allow-origin"] == OURS
            assert "x-request-id" in answer.headers["access-control-expose-headers"]
            assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize(
    "origin", [THEIRS, "null", "http://app.example", "https://app.example.evil.example", ""]
)
async def test_another_site_is_told_nothing(tmp_path: Path, origin: str) -> None:
    async with gateway(tmp_path, options=options(OURS)) as gate:
        for method in ("OPTIONS", "GET"):
            asked = {**ASKS, "origin": origin}
            answer = await gate.client.call(method, "/v1/me", b"", headers=asked)
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.headers["vary"] == "origin"


async def test_by_default_there_is_none(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.client.call("OPTIONS", "/v1/me", b"", headers=ASKS)
        assert answer.status == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_all_sites_never_means_with_cookies(tmp_path: Path) -> None:
    async with gateway(tmp_path, options=options("*")) as gate:
        answer = await gate.client.get("/v1/me", headers={"origin": THEIRS})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        stranger = Client(gate.client.app, token=None)
        theirs = {"origin": THEIRS, "host": "inferd.example", "cookie": "session=x"}
        answer = await stranger.get("/v1/me", headers=theirs)
        assert answer.status == 403


async def test_a_preflight_repeats_no_broken_header(tmp_path: Path) -> None:
    async with gateway(tmp_path, options=options(OURS)) as gate:
        asked = {**ASKS, "access-control-request-headers": "a\r\nset-cookie: x=1"}
        answer = await gate.client.call("OPTIONS", "/v1/me", b"", headers=asked)
        assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
