"""A loaded model opens no door of its own, and knows no secret."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.hostile.siege import Siege
from tests.hostile.test_starting import listeners
from tests.hostile.wire import port_of, request
from tests.process import TOKEN

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="package")]


async def test_only_the_gateway_listens_and_on_loopback(siege: Siege) -> None:
    assert listeners(siege.server.pid) == [("127.0.0.1", port_of(siege.server.url))]
    assert listeners(siege.worker_pid) == []


async def test_the_engines_own_socket_is_private_and_wants_a_key(siege: Siege) -> None:
    paths = unix_listeners(siege.worker_pid)
    assert paths, "the tokenizer has a socket"
    for path in paths:
        assert path.parent.stat().st_mode & 0o077 == 0
        for target in ("/tokenize", "/slots", "/props", "/completion", "/lora-adapters"):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(request("POST", target, {"content-type": "application/json"}, b"{}"))
            status = int((await reader.read(1 << 16)).split()[1])
            writer.close()
            await writer.wait_closed()
            assert status in (401, 404), target


def unix_listeners(pid: int) -> list[Path]:
    """Paths of the Unix sockets on which a process listens."""
    inodes = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    found: list[Path] = []
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        listens = int(fields[3], 16) & 0x10000
        if listens and len(fields) > 7 and f"socket:[{fields[6]}]" in inodes:
            found.append(Path(fields[7]))
    return found


async def test_the_worker_inherits_no_secret(siege: Siege) -> None:
    shown = Path(f"/proc/{siege.worker_pid}/environ").read_bytes()
    assert TOKEN.encode() not in shown
    assert b"INFERD_" not in shown
    argv = Path(f"/proc/{siege.worker_pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in argv


async def test_no_log_holds_a_secret_or_a_prompt(siege: Siege) -> None:
    """After whatever ran before: refused tokens, tokens in queries, broken requests."""
    async with siege.server.client() as client:
        await client.post(f"/v1/chat/completions?token={siege.attacker}", json={"model": "x"})
        await client.get("/v1/usage", headers={"authorization": "Bearer guess-of-a-secret"})
        body = {"model": siege.model, "prompt": "sesame-in-a-prompt", "max_tokens": 1}
        assert (await client.post("/v1/completions", json=body)).status_code == 200
    logs = [siege.server.stderr()]
    logs += [path.read_text(errors="replace") for path in siege.server.data_dir.glob("logs/*")]
    for log in logs:
        for secret in (TOKEN, siege.attacker, siege.neighbour, "guess-of-a-secret"):
            assert secret not in log
        assert "sesame-in-a-prompt" not in log
