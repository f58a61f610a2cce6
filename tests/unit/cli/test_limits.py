"""`inferd limits`, with a server and without."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.steps import CHAT, body, card
from tests.process import serving


async def inferd(data_dir: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "INFERD_DATA_DIR": str(data_dir), "INFERD_PORT": "0"}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "inferd.cli", "limits", *command],
        env=environment,
        cwd=data_dir,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_a_limit_is_set_listed_and_removed_without_a_server(tmp_path: Path) -> None:
    told = await inferd(tmp_path, "set", "--account", "*", "--model", "*", "--requests", "7")
    assert (told.returncode, told.stdout) == (0, "Set.\n"), told.stderr
    listed = await inferd(tmp_path, "list", "--json")
    assert json.loads(listed.stdout) == [
        {
            "account_id": "*",
            "token_id": None,
            "model": "*",
            "concurrent_requests": None,
            "requests_per_minute": 7,
            "tokens_per_minute": None,
            "own": False,
        }
    ]
    told = await inferd(tmp_path, "set", "--account", "*", "--model", "*")
    assert told.stdout == "Removed.\n"
    assert json.loads((await inferd(tmp_path, "list", "--json")).stdout) == []
    told = await inferd(tmp_path, "set", "--account", "acc_none", "--requests", "1")
    assert (told.returncode, told.stderr) == (1, "inferd: No such account.\n")


async def test_a_limit_of_a_running_server_and_a_wish(tmp_path: Path) -> None:
    async with serving(tmp_path, card("t/echo")) as server, server.client() as client:
        await inferd(tmp_path, "set", "--model", "t/echo", "--requests", "1")
        answers = [(await client.post(CHAT, json=body("t/echo"))).status_code for _ in range(2)]
        assert answers == [200, 429]
        wish = {"rate_limit": 300, "reason": "A fair."}
        assert (await client.post("/v1/me/rate_limit/request", json=wish)).status_code == 200
        (asked,) = json.loads((await inferd(tmp_path, "requests", "--json")).stdout)
        assert asked["reason"] == "A fair."
        told = await inferd(tmp_path, "grant", asked["id"], "--answer", "Enjoy.")
        assert told.stdout == "Granted.\n", told.stderr
        assert (await client.get("/v1/me/rate_limit")).json()["rate_limit"] == 300
        again = await inferd(tmp_path, "reject", asked["id"])
        assert again.returncode == 1
        assert "no pending request" in again.stderr
