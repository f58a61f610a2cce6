"""No process of inferd listens but the gateways on their one port, whatever was started."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.gateway import echo_card
from tests.hostile.test_listeners import unix_listeners
from tests.hostile.test_starting import listeners
from tests.hostile.wire import port_of
from tests.process import TOKEN, InferdProcess, serving
from tests.servers import PostgresServer, ValkeyServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "a"}]}
GREETINGS = (
    b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x00" * 64,
    b"\x00\x00\x00\x04\x81\xa1a\x01",
    b"\xff" * 4096,
)
SILENCE_SECONDS = 1


def family(pid: int) -> list[int]:
    """A process and all below it."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            below.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += below.get(parent, [])
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["one", "several"])
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InferdProcess]:
    """One gateway on SQLite; two on PostgreSQL. A model is loaded."""
    settings: dict[str, object] = {}
    if request.param == "several":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        valkey: ValkeyServer = request.getfixturevalue("valkey")
        url = await postgres.migrated()
        settings = {"workers": 2, "database_url": url, "valkey_url": valkey.url}
    folder = tmp_path_factory.mktemp("processes")
    async with serving(folder, echo_card(), **settings) as made:
        async with made.client() as client:
            answer = await client.post("/v1/chat/completions", json=BODY)
            assert answer.status_code == 200, answer.text
        yield made


async def test_only_the_port_that_was_asked_for_is_open(server: InferdProcess) -> None:
    pids = family(server.pid)
    assert len(pids) >= 2, "the engine has a process"
    for pid in pids:
        assert set(listeners(pid)) <= {("127.0.0.1", port_of(server.url))}, pid


async def test_every_other_socket_is_private_and_answers_no_stranger(
    server: InferdProcess,
) -> None:
    for pid in family(server.pid):
        for path in unix_listeners(pid):
            assert path.parent.stat().st_mode & 0o077 == 0, path
            for greeting in GREETINGS:
                told = await heard(path, greeting)
                assert b"200 OK" not in told, (path, greeting[:20], told[:200])
                assert TOKEN.encode() not in told
    async with server.client() as client:
        assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200


async def heard(path: Path, greeting: bytes) -> bytes:
    """What a stranger is told."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return b""
    try:
        writer.write(greeting)
        async with asyncio.timeout(SILENCE_SECONDS):
            return await reader.read(1 << 16)
    except (TimeoutError, ConnectionError):
        return b""
    finally:
        writer.close()


async def test_no_secret_stands_in_an_engines_environment(server: InferdProcess) -> None:
    for pid in family(server.pid):
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert TOKEN.encode() not in argv
        if b"inferd.serving.worker" in argv:
            assert b"INFERD_" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_files_are_their_owners_alone(server: InferdProcess) -> None:
    for name in ("secret.key", "server.json", "inferd.db", "lock"):
        path = server.data_dir / name
        if path.exists():
            assert path.stat().st_mode & 0o077 == 0, name
            assert path.stat().st_uid == os.getuid()
