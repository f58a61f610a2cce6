"""openai and deepinfra from npm against the running server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.process import TOKEN, serving
from tests.weights import SMOLLM2, smollm2_card

SOURCE = Path(__file__).parent / "node"

pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
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


async def run_script(script: str, installed: Path, tmp_path: Path) -> dict[str, Any]:
    async with serving(tmp_path, smollm2_card()) as server:
        command = ["node", script, server.url, TOKEN, SMOLLM2]
        import asyncio

        process = await asyncio.create_subprocess_exec(
            *command, cwd=installed, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        output, complaint = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, complaint.decode()
    told: dict[str, Any] = json.loads(output)
    return told


async def test_openai_for_node(installed: Path, tmp_path: Path) -> None:
    told = await run_script("openai.mjs", installed, tmp_path)
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


async def test_deepinfra_for_node(installed: Path, tmp_path: Path) -> None:
    told = await run_script("deepinfra.mjs", installed, tmp_path)
    assert told["text"]
    assert told["tokens"] == 6
    assert told["status"]["status"] == "succeeded"
    assert told["status"]["tokens_generated"] == 6
    assert "error" in told
