"""openai, deepinfra and the AI SDK from npm against the running server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

SOURCE = Path(__file__).parent / "node"
SECONDS_MAX = 120
CITIES = ({"city": "Paris"}, {"city": "Rome"})

pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm"),
]


@pytest.fixture(scope="module")
def installed() -> Path:
    """The clients, installed once for each user and set of versions."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "inferd-tests" / "node"
    wanted = (SOURCE / "package.json").read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "package.json"
    if not mark.exists() or mark.read_bytes() != wanted or not (folder / "node_modules").exists():
        mark.write_bytes(wanted)
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=folder, check=True, timeout=300)
    for script in SOURCE.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


async def run_script(
    server: InferdProcess, installed: Path, script: str, *arguments: str
) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *("node", script, server.url, TOKEN, SMOLLM2, *arguments),
        cwd=installed,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, complaint = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    assert process.returncode == 0, complaint.decode()
    told: dict[str, Any] = json.loads(output)
    return told


async def test_openai_for_node(server: InferdProcess, installed: Path) -> None:
    told = await run_script(server, installed, "openai.mjs")
    assert "Paris" in told["plain"]
    assert told["plain"] == told["streamed"] == told["helper"]
    assert told["cost"] > 0
    assert SMOLLM2 in told["models"]
    assert told["errors"] == {
        "bad": ["BadRequestError", 400, "temperature"],
        "unsupported": ["BadRequestError", 400, "functions"],
        "missing": ["NotFoundError", 404, "model"],
        "unauthorized": ["AuthenticationError", 401, None],
    }


async def test_openai_for_node_calls_parses_and_responds(
    server: InferdProcess, installed: Path
) -> None:
    told = await run_script(server, installed, "openai_tools.mjs")
    for name in ("required", "named"):
        assert told[name]["reason"] in ("tool_calls", "stop")
        ((kind, has_id, function, arguments),) = told[name]["calls"]
        assert (kind, has_id, function) == ("function", True, "get_weather")
        assert json.loads(arguments) in CITIES
        assert told[name] == told[f"{name}Streamed"]
    assert told["free"]
    assert told["roles"][:3] == ["user", "assistant", "tool"]
    assert told["parsed"] in CITIES
    assert told["responseParsed"] in CITIES
    assert told["response"] == told["responseStreamed"] != ""
    assert told["broken"] == ["InternalServerError", 500]
    assert len([e for e in server.entries() if e.end_user == "three times"]) == 3


@pytest.mark.parametrize("provider", ["deepinfra", "compatible"])
async def test_the_ai_sdk(server: InferdProcess, installed: Path, provider: str) -> None:
    told = await run_script(server, installed, "ai_sdk.mjs", provider)
    assert told["plain"] == told["streamed"] != ""
    assert (told["usage"], told["streamedUsage"]) == ([True, 12], 12)
    assert told["reason"] == "length"
    assert told["object"] in CITIES
    assert told["objectStreamed"] in CITIES
    assert told["parts"] > 0
    ((name, given),) = told["calls"]
    assert name == "get_weather"
    assert given in CITIES
    assert told["results"] == [f"Sunny in {given['city']}"]
    assert told["callReason"] == "tool-calls"
    assert [name for name, _ in told["callsStreamed"]] == ["get_weather"]
    assert told["steps"]
    assert [error[:2] for error in told["errors"].values()] == [
        ["AI_APICallError", 400],
        ["AI_APICallError", 404],
    ]
    assert "no/such" in told["errors"]["missing"][2]
    assert told["broken"]


async def test_deepinfra_for_node(server: InferdProcess, installed: Path) -> None:
    told = await run_script(server, installed, "deepinfra.mjs")
    assert told["text"]
    assert told["tokens"] == 6
    assert told["status"]["status"] == "succeeded"
    assert told["status"]["tokens_generated"] == 6
    assert "error" in told
