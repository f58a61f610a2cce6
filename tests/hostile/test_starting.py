"""A start that would expose the machine does not happen; one that happens listens on loopback."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.hostile.wire import port_of
from tests.process import InferdProcess, serving

PUBLIC = ("0.0.0.0", "::", "10.0.0.1", "example.org", "0", "127.0.0.1.example.org", "")
KNOWN_SECRETS = ("admin", "changeme", "sk-1234", "x" * 31)


@pytest.mark.parametrize("host", PUBLIC)
async def test_a_public_address_needs_a_secret_first(tmp_path: Path, host: str) -> None:
    server = InferdProcess(tmp_path, host=host, bootstrap_token="")
    with pytest.raises(AssertionError, match="public address"):
        await server.start()
    assert not (tmp_path / "inferd.db").exists()


@pytest.mark.parametrize("secret", KNOWN_SECRETS)
async def test_a_secret_that_can_be_guessed_is_none(tmp_path: Path, secret: str) -> None:
    server = InferdProcess(tmp_path, host="0.0.0.0", bootstrap_token=secret)
    with pytest.raises(AssertionError, match="32 characters") as caught:
        await server.start()
    assert secret not in str(caught.value).replace("INFERD_BOOTSTRAP_TOKEN", "")


async def test_by_default_only_this_machine_can_connect(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert listeners(server.pid) == [("127.0.0.1", port_of(server.url))]
        for own in _own_addresses():
            with pytest.raises(OSError, match="refused"):
                await asyncio.open_connection(own, port_of(server.url))


async def test_what_a_server_writes_is_private(tmp_path: Path) -> None:
    async with serving(tmp_path):
        for name in ("secret.key", "server.json"):
            assert (tmp_path / name).stat().st_mode & 0o077 == 0, name


async def test_a_secret_on_the_command_line_is_refused(tmp_path: Path) -> None:
    server = InferdProcess(tmp_path)
    code, told = await server.cli("serve", "--set", "bootstrap_token=" + "x" * 40)
    assert code != 0
    assert "x" * 40 not in told


def listeners(pid: int) -> list[tuple[str, int]]:
    """TCP addresses on which a process listens."""
    inodes: set[str] = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(link.readlink()))
        except FileNotFoundError:
            continue
    found: list[tuple[str, int]] = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address, _, port = fields[1].partition(":")
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                found.append((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return found


def _own_addresses() -> list[str]:
    """Addresses of this machine that others can reach."""
    found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM)
    addresses = {str(entry[4][0]) for entry in found}
    return sorted(address for address in addresses if not address.startswith("127."))
