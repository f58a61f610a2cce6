"""The command line, with and without a running server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import msgspec

from tests.e2e.steps import CHAT, body, card
from tests.process import InferdProcess, serving


async def test_without_a_server_it_runs_a_model_meters_it_and_manages_tokens(
    data_dir: Path,
) -> None:
    server = InferdProcess(data_dir)
    server.add_card(card("t/echo"))
    assert await server.cli("run", "t/echo", "hello there") == (0, "hello there\n")
    (entry,) = server.entries()
    assert (entry.status, entry.output_tokens) == ("succeeded", 2)
    code, secret = await server.cli("token", "create", "ci")
    assert (code, secret.startswith("ifd_")) == (0, True)
    _, listed = await server.cli("token", "list")
    (token_id,) = [line.split()[0] for line in listed.splitlines() if line.endswith(" ci")]
    assert (await server.cli("token", "revoke", token_id))[0] == 0
    assert (await server.cli("token", "revoke", token_id))[0] == 1
    _, report = await server.cli("usage", "--json")
    assert msgspec.json.decode(report)["rows"][0]["requests"] == 1
    code, said = await server.cli("run", "t/unknown", "hello")
    assert (code, "inferd: " in said) == (1, True)
    assert "Traceback" not in said
    assert (await server.cli("usage", "verify")) == (0, "1 entries, all right.\n")


async def test_with_a_server_it_asks_that_one(data_dir: Path) -> None:
    async with serving(data_dir, card("t/echo")) as server:
        assert await server.cli("run", "t/echo", "hello there") == (0, "hello there\n")
        code, listed = await server.cli("models", "list")
        assert (code, "t/echo" in listed) == (0, True)
        code, shown = await server.cli("models", "show", "t/echo")
        assert (code, "t/echo" in shown) == (0, True)
        code, said = await server.cli("run", "t/unknown", "hello")
        assert (code, "t/unknown" in said, "Traceback" in said) == (1, True, False)
        assert (await server.cli("usage", "verify"))[0] == 0


async def test_a_token_is_good_at_once_and_revoked_at_once(data_dir: Path) -> None:
    async with serving(data_dir, card("t/echo")) as server:
        _, said = await server.cli("token", "create", "guest")
        bearer = {"authorization": f"Bearer {said.strip()}"}
        async with httpx.AsyncClient(base_url=server.url, headers=bearer) as guest:
            assert (await guest.post(CHAT, json=body("t/echo"))).status_code == 200
            # It may run models and nothing else.
            assert (await guest.get("/v1/api-tokens")).status_code == 403
            _, listed = await server.cli("token", "list")
            (token_id,) = [x.split()[0] for x in listed.splitlines() if x.endswith(" guest")]
            assert (await server.cli("token", "revoke", token_id))[0] == 0
            assert (await guest.post(CHAT, json=body("t/echo"))).status_code == 401


async def test_a_token_outlives_the_server_and_its_revocation_too(data_dir: Path) -> None:
    async with serving(data_dir, card("t/echo")) as server, server.client() as client:
        made = [
            (await client.post("/v1/api-tokens", json={"name": name})).json()
            for name in ("kept", "revoked")
        ]
        await client.delete(f"/v1/api-tokens/id/{made[1]['token_id']}")
    async with serving(data_dir) as server:
        statuses: list[int] = []
        for token in made:
            bearer = {"authorization": f"Bearer {token['token']}"}
            async with httpx.AsyncClient(base_url=server.url, headers=bearer) as guest:
                statuses.append((await guest.post(CHAT, json=body("t/echo"))).status_code)
    assert statuses == [200, 401]
    # A stolen database holds no secret.
    content = (data_dir / "inferd.db").read_bytes()
    assert not [token for token in made if token["token"].encode() in content]


async def test_usage_is_grouped_and_adds_up(data_dir: Path) -> None:
    async with serving(data_dir, card("t/a"), card("t/b")) as server, server.client() as client:
        calls = [client.post(CHAT, json=body(m, user=f"u{m}")) for m in ("t/a", "t/a", "t/b")]
        await asyncio.gather(*calls)
        total = sum(entry.cost_nanos for entry in server.entries())
        for by, keys in (("model", {"t/a", "t/b"}), ("end_user", {"ut/a", "ut/b"})):
            code, report = await server.cli("usage", "--by", by, "--json")
            told = msgspec.json.decode(report)
            assert code == 0
            assert {row["key"] for row in told["rows"]} == keys
            assert sum(row["cost_nanos"] for row in told["rows"]) == total > 0
            table = await server.cli("usage", "--by", by, "--csv")
            told = await client.get(f"/v1/usage?by={by}&account=all&format=csv")
            assert table == (0, told.text)
