"""Accounts and tokens with real processes: the command line, and the logs that keep no secret."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import msgspec

from tests.e2e.steps import CHAT, body, card
from tests.jwts import offline_jwt
from tests.process import InferdProcess, serving


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_the_command_line_makes_suspends_and_deletes_an_account(data_dir: Path) -> None:
    async with serving(data_dir, card("t/echo")) as server:
        code, said = await server.cli("account", "create", "blue", "--email", "a@example.com")
        assert code == 0, said
        uid, secret = said.split()
        _, again = await server.cli("account", "create", "blue")
        assert "is taken" in again
        async with httpx.AsyncClient(base_url=server.url, headers=bearer(secret)) as guest:
            statuses: list[int] = []
            for command in (("suspend", uid, "no"), ("unsuspend", uid), ("delete", uid, "--yes")):
                statuses.append((await guest.post(CHAT, json=body("t/echo"))).status_code)
                assert (await server.cli("account", *command))[0] == 0
            statuses.append((await guest.post(CHAT, json=body("t/echo"))).status_code)
        assert statuses == [200, 402, 200, 401]
        _, listed = await server.cli("account", "list", "--json")
        assert [one["display_name"] for one in msgspec.json.decode(listed)] == ["admin"]


async def test_without_a_server_a_token_is_made_with_all_that_holds_it(data_dir: Path) -> None:
    server = InferdProcess(data_dir)
    server.add_card(card("t/echo"))
    _, said = await server.cli("account", "create", "blue")
    uid = said.split()[0]
    options = "--expires 12h --allow-ip 10.0.0.0/8 --allow-model t/echo --monthly-limit 2.5"
    code, secret = await server.cli(
        "token", "create", "held", "--account", uid, *options.split(), "--allow-ip", "::1"
    )
    assert (code, secret.startswith("ifd_")) == (0, True), secret
    _, listed = await server.cli("token", "list", "--account", uid)
    held = next(line for line in listed.splitlines() if line.endswith(" held"))
    for part in ("allowed_ips=10.0.0.0/8,::1/128", "allowed_models=t/echo", "monthly_limit=2.5"):
        assert part in held
    assert "expires_at=" in held
    assert (await server.cli("token", "revoke", held.split()[0])) == (0, "Revoked.\n")
    assert (await server.cli("token", "create", "x", "--expires", "soon"))[0] == 1
    assert (await server.cli("account", "delete", uid))[0] != 0


async def test_no_secret_and_no_jwt_reaches_a_log(data_dir: Path) -> None:
    """Whatever a client does with it, and whatever is wrong with the request around it."""
    async with serving(data_dir, card("t/echo"), log_format="json") as server:
        async with server.client() as client:
            secret = (await client.post("/v1/api-tokens", json={"name": "k"})).json()["token"]
            uid = (await client.get("/v1/me")).json()["uid"]
            jwt = offline_jwt(uid, "k", secret, {"exp": int(time.time()) + 60})
            for shown in (secret, jwt):
                for path in (
                    f"/v1/api-tokens/{shown}",
                    f"/payment/usage/{shown}",
                    f"/v1/scoped-jwt?jwtoken={shown}",
                    f"/v1/unknown/{shown}",
                    f"/v1/me?api_key={shown}",
                    f"/v1/usage?from={shown}",
                ):
                    await client.get(path)
                    await client.request("DELETE", path)
                await client.post("/v1/scoped-jwt/inspect", json={"jwtoken": shown})
                await client.post("/v1/scoped-jwt/inspect", content=f'{{"jwtoken": {shown}')
                await client.post(CHAT, json=body("t/echo"), headers=bearer(shown))
                await client.post(CHAT, json={"model": shown}, headers=bearer(shown + "x"))
            metrics = (await client.get("/metrics")).text
        # A broken request, of which the server never gets to know the path.
        for shown in (secret, jwt):
            await _raw(server.url, f"GET /v1/api-tokens/{shown} HTTP/9.9\r\n\r\n")
            await _raw(server.url, f"BAD\x00 {shown}\r\nAuthorization: Bearer {shown}\r\n\r\n")
        said = server.stderr()
    kept = [said, server.stderr(), metrics]
    kept += [file.read_text(errors="replace") for file in (data_dir / "logs").glob("*")]
    assert any("/v1/api-tokens/{rest}" in one for one in kept)
    for one in kept:
        for shown in (secret, jwt, jwt.rpartition(".")[2]):
            assert shown not in one


async def _raw(url: str, content: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(content.encode("latin-1"))
    await writer.drain()
    await asyncio.wait_for(reader.read(), 10)
    writer.close()
