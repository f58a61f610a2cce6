"""Clients that call https://api.deepinfra.com and nothing else, where the machine permits it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients import fixed_host
from tests.clients.support import package
from tests.process import InferdProcess
from tests.weights import SMOLLM2

SCRIPTS = Path(__file__).parent / "scripts"

pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    # The packages are imported here only to see that they are there.
    pytest.mark.filterwarnings("ignore"),
]


async def run(server: InferdProcess, folder: Path, client: str) -> dict[str, Any]:
    package(client)
    try:
        return await fixed_host.ask(folder, server.url, SMOLLM2, SCRIPTS / f"of_{client}.py")
    except fixed_host.Unavailable as missing:
        pytest.skip(str(missing))


async def test_langchain_community(server: InferdProcess, tmp_path: Path) -> None:
    told = await run(server, tmp_path, "langchain_community")
    assert told["text"] == told["text_streamed"] != ""
    assert told["chat"] == told["chat_streamed"] != ""
    assert told["missing"] == "DeepInfra Server: Model not found no/such"


async def test_huggingface_hub(server: InferdProcess, tmp_path: Path) -> None:
    told = await run(server, tmp_path, "huggingface_hub")
    assert told["chat"] == told["chat_streamed"] != ""
    assert told["tokens"] == 12
    assert told["text"]


async def test_deepinfra(server: InferdProcess, tmp_path: Path) -> None:
    assert (await run(server, tmp_path, "deepinfra"))["text"]
