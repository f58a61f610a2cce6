"""URLs of callers: what they lead to is public, small, quick, and the address that was checked."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from inferd.access.fetches import ACCOUNT_FETCHES_MAX
from inferd.api import checked_connection
from inferd.api.address import read_networks
from inferd.api.fetch_url import REDIRECTS_MAX, fetch_url
from inferd.api.services import ApiOptions, Services
from inferd.errors import (
    FetchTimedOut,
    InferdError,
    PayloadTooLarge,
    TooManyRequests,
    UrlNotAllowed,
    UrlUnreadable,
)
from tests.gateway import Gateway, gateway, until
from tests.hostile.attack import leaks
from tests.web import Web, page, web

BYTES_MAX = 300_000
SECONDS_MAX = 0.5
ONLY_THIS = read_networks("127.0.0.1/32")


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Web]:
    async with web() as made:
        yield made


def options(*, private: bool = True, seconds: float = SECONDS_MAX) -> ApiOptions:
    return ApiOptions(
        media_bytes_max=BYTES_MAX,
        media_seconds_max=seconds,
        private_media=ONLY_THIS if private else (),
    )


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, options=options()) as made:
        yield made


async def fetch(services: Services, url: str) -> bytes:
    return await fetch_url(url, "account", services, "image")


async def refused(services: Services, url: str, kind: type[InferdError]) -> InferdError:
    """The refusal, which tells nothing and leaves nothing counted."""
    with pytest.raises(kind) as caught:
        await fetch(services, url)
    assert not leaks(caught.value.message.encode())
    assert caught.value.param == "image"
    assert services.bodies.total == 0
    return caught.value


Looked = list[tuple[str, int]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], Looked]:
    """Lets names lead to addresses; says what was looked up."""

    def lead(known: dict[str, list[str]]) -> Looked:
        looked: Looked = []

        async def getaddrinfo(
            _loop: object, host: str, port: int, **_: Any
        ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            if not host[0].isdigit():
                looked.append((host, port))
            found = known.get(host, [host] if host[0].isdigit() else [])
            if not found:
                raise socket.gaierror("unknown")
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, (address, port)) for address in found]

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(type(loop), "getaddrinfo", getaddrinfo)
        return looked

    return lead


async def test_a_page_is_fetched_with_nothing_of_ours_in_the_request(
    gate: Gateway, site: Web
) -> None:
    content = b"\x89PNG" * 30_000
    site.pages["/a"] = page(content)
    assert await fetch(gate.services, site.url("/a?b=c#d")) == content
    [head] = site.heads
    lines = head.decode().split("\r\n")
    assert lines[0] == "GET /a?b=c HTTP/1.1"
    assert {line.partition(":")[0].lower() for line in lines[1:] if line} == {
        *("host", "user-agent", "accept", "accept-encoding", "connection")
    }
    assert gate.services.bodies.total == 0


async def test_a_page_without_a_length_ends_with_its_connection_or_in_chunks(
    gate: Gateway, site: Web
) -> None:
    site.pages["/closed"] = b"HTTP/1.0 200 OK\r\n\r\nabc"
    site.pages["/chunks"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    assert await fetch(gate.services, site.url("/closed")) == b"abc"
    assert await fetch(gate.services, site.url("/chunks")) == b"abc"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost.", "[::1]", "0.0.0.0"])
async def test_nothing_inside_is_reached(tmp_path: Path, site: Web, host: str) -> None:
    site.pages["/a"] = page(b"secret")
    async with gateway(tmp_path, options=options(private=False)) as gate:
        error = await refused(gate.services, site.url("/a", host), UrlNotAllowed)
    assert (error.status, error.code) == (400, "url_not_allowed")
    assert site.heads == []


async def test_a_name_with_one_address_inside_is_refused_whole(
    gate: Gateway, site: Web, names: Callable[[dict[str, list[str]]], Looked]
) -> None:
    site.pages["/a"] = page(b"secret")
    names({"both.test": ["127.0.0.1", "10.0.0.1"], "mapped.test": ["::ffff:169.254.169.254"]})
    for host in ("both.test", "mapped.test"):
        await refused(gate.services, site.url("/a", host), UrlNotAllowed)
    assert site.heads == []


async def test_an_unknown_name_is_refused_like_a_name_inside(
    gate: Gateway, names: Callable[[dict[str, list[str]]], Looked]
) -> None:
    names({"inside.test": ["10.0.0.1"]})
    unknown = await refused(gate.services, "http://unknown.test/", UrlNotAllowed)
    inside = await refused(gate.services, "http://inside.test/", UrlNotAllowed)
    assert unknown.message == inside.message


async def test_a_name_is_looked_up_once_and_the_checked_address_is_connected_to(
    gate: Gateway, site: Web, names: Callable[[dict[str, list[str]]], Looked]
) -> None:
    site.pages["/a"] = page(b"abc")
    looked = names({"rebound.test": ["127.0.0.1"]})
    assert await fetch(gate.services, site.url("/a", "rebound.test")) == b"abc"
    assert looked == [("rebound.test", site.port)]
    assert f"Host: rebound.test:{site.port}\r\n".encode() in site.heads[0]


class TestRedirects:
    @pytest.mark.parametrize(
        "location",
        [
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost:{port}/a",
            "//10.0.0.1/a",
            "http://127.0.0.1:1/a",
            "http://127.0.0.1:{port}@10.0.0.1/",
            "file:///etc/passwd",
            "http://127.0.0.1\\@10.0.0.1/",
            "https://127.0.0.1:{port}/a",
        ],
    )
    async def test_one_to_another_place_is_refused(
        self, gate: Gateway, site: Web, location: str
    ) -> None:
        where = location.format(port=site.port)
        site.pages["/from"] = page(b"", f"Location: {where}", status="302 Found")
        site.pages["/a"] = page(b"secret")
        await refused(gate.services, site.url("/from"), UrlNotAllowed)
        assert len(site.heads) == 1

    async def test_one_on_the_same_host_is_followed(self, gate: Gateway, site: Web) -> None:
        site.pages["/from"] = page(b"no", "Location: to?x=1", status="307 Temporary Redirect")
        site.pages["/to"] = page(b"yes")
        assert await fetch(gate.services, site.url("/from")) == b"yes"

    async def test_a_circle_ends(self, gate: Gateway, site: Web) -> None:
        site.pages["/from"] = page(b"", "Location: /from", status="301 Moved Permanently")
        await refused(gate.services, site.url("/from"), UrlUnreadable)
        assert len(site.heads) == REDIRECTS_MAX + 1

    async def test_each_step_is_looked_up_and_checked_again(
        self, gate: Gateway, site: Web, names: Callable[[dict[str, list[str]]], Looked]
    ) -> None:
        known = {"turning.test": ["127.0.0.1"]}
        looked = names(known)

        async def turn(writer: asyncio.StreamWriter) -> None:
            known["turning.test"] = ["10.0.0.1"]
            writer.write(page(b"", "Location: /b", status="302 Found"))

        site.pages["/a"] = turn
        await refused(gate.services, site.url("/a", "turning.test"), UrlNotAllowed)
        assert len(looked) == 2
        assert len(site.heads) == 1


class TestSizeAndTime:
    async def test_a_length_over_the_cap_is_refused_unread(self, gate: Gateway, site: Web) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\nabc"
        site.pages["/a"] = head
        await refused(gate.services, site.url("/a"), PayloadTooLarge)

    async def test_an_endless_answer_is_cut_at_the_cap(self, gate: Gateway, site: Web) -> None:
        sent = 0

        async def endless(writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"a" * 65_536)
                sent += 65_536
                await writer.drain()

        site.pages["/a"] = endless
        await refused(gate.services, site.url("/a"), PayloadTooLarge)
        assert sent < BYTES_MAX + (16 << 20), "the socket's buffers, not the whole world"

    async def test_an_endless_head_is_refused(self, gate: Gateway, site: Web) -> None:
        site.pages["/a"] = b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 100_000
        await refused(gate.services, site.url("/a"), UrlUnreadable)

    @pytest.mark.parametrize("began", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
    async def test_a_silent_server_is_left(self, gate: Gateway, site: Web, began: bytes) -> None:
        async def silent(writer: asyncio.StreamWriter) -> None:
            writer.write(began)
            await asyncio.Event().wait()

        site.pages["/a"] = silent
        loop = asyncio.get_running_loop()
        start = loop.time()
        error = await refused(gate.services, site.url("/a"), FetchTimedOut)
        assert error.status == 408
        assert SECONDS_MAX * 0.9 <= loop.time() - start < SECONDS_MAX + 5

    @pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
    async def test_a_compressed_answer_is_refused(
        self, gate: Gateway, site: Web, coding: str
    ) -> None:
        site.pages["/a"] = page(b"\x1f\x8b" * 10, f"Content-Encoding: {coding}")
        await refused(gate.services, site.url("/a"), UrlUnreadable)

    async def test_an_account_fetches_only_a_few_at_once(self, tmp_path: Path, site: Web) -> None:
        waiting, enough = 0, asyncio.Event()

        async def slow(writer: asyncio.StreamWriter) -> None:
            nonlocal waiting
            waiting += 1
            await enough.wait()
            writer.write(page(b"abc"))

        site.pages["/a"] = slow
        async with gateway(tmp_path, options=options(seconds=30)) as gate:
            url = site.url("/a")
            fetches = [
                asyncio.ensure_future(fetch(gate.services, url)) for _ in range(ACCOUNT_FETCHES_MAX)
            ]
            await until(lambda: waiting == ACCOUNT_FETCHES_MAX)
            with pytest.raises(TooManyRequests):
                await fetch(gate.services, url)
            other = asyncio.ensure_future(fetch_url(url, "another", gate.services, "image"))
            await until(lambda: waiting == ACCOUNT_FETCHES_MAX + 1)
            enough.set()
            assert await asyncio.gather(*fetches, other) == [b"abc"] * (ACCOUNT_FETCHES_MAX + 1)
            assert await fetch(gate.services, url) == b"abc"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"220 smtp.example.com ESMTP\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
    ],
)
async def test_an_answer_that_is_none_is_refused(gate: Gateway, site: Web, answer: bytes) -> None:
    site.pages["/a"] = answer
    await refused(gate.services, site.url("/a"), UrlUnreadable)


async def test_a_closed_port_is_told_without_an_address(gate: Gateway) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        error = await refused(gate.services, f"http://127.0.0.1:{port}/", UrlUnreadable)
    assert "127.0.0.1" not in error.message


def authority(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for these names, and the certificate that signs itself."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ",".join(f"DNS:{name}" for name in names)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={subject}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_a_certificate_must_be_of_the_name_in_the_url(
    gate: Gateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: Callable[[dict[str, list[str]]], Looked],
) -> None:
    served, certificate = authority(tmp_path, "right.test")
    names({"right.test": ["127.0.0.1"], "wrong.test": ["127.0.0.1"]})
    async with web(served) as site:
        site.pages["/a"] = page(b"abc")
        right = site.url("/a", "right.test").replace("http", "https")
        error = await refused(gate.services, right, UrlUnreadable)
        assert "certificate" in error.message
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(checked_connection, "_tls", lambda: trusting)
        assert await fetch(gate.services, right) == b"abc"
        wrong = right.replace("right", "wrong")
        await refused(gate.services, wrong, UrlUnreadable)
        assert len(site.heads) == 1
