"""A31: receivers of webhooks that lead inside, never answer, never end, or speak no HTTP."""

from __future__ import annotations

import asyncio

import pytest

from inferd.api import post_url as posting
from inferd.api.address import read_networks
from inferd.api.post_url import HEAD_BYTES_MAX, post_url
from inferd.errors import FetchTimedOut, UrlNotAllowed, UrlUnreadable
from tests.web import Web, web

HERE = read_networks("127.0.0.0/8")
INSIDE = (
    "http://127.0.0.1/",
    "http://localhost/",
    "http://localhost./",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://0.0.0.0/",
    "http://user@example.com/",
    "http://good\\@169.254.169.254/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
)


async def posted(site: Web, path: str = "/hook") -> int:
    return await post_url(site.url(path), [("webhook-id", "msg_1")], b"{}", HERE)


@pytest.mark.parametrize("url", INSIDE)
async def test_nothing_inside_is_called(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        await post_url(url, [], b"{}", ())


async def test_one_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "SECONDS_MAX", 0.1)
    never = asyncio.Event()

    async def silent(_: asyncio.StreamWriter) -> None:
        await never.wait()

    async with web() as site:
        site.pages["/hook"] = silent
        with pytest.raises(FetchTimedOut):
            await posted(site)


async def test_the_body_of_an_answer_is_not_read() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with web() as site:
        site.pages["/hook"] = endless
        async with asyncio.timeout(5):
            assert await posted(site) == 200


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x00\xff nonsense\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * (2 * HEAD_BYTES_MAX),
    ],
)
async def test_what_is_no_answer_is_told_in_a_fixed_sentence(said: bytes) -> None:
    async with web() as site:
        site.pages["/hook"] = said
        with pytest.raises(UrlUnreadable) as caught:
            await posted(site)
    assert "0x" not in caught.value.message
    assert "127.0.0.1" not in caught.value.message


async def test_a_redirect_is_an_answer_and_no_way() -> None:
    async with web() as site:
        site.pages["/hook"] = b"HTTP/1.1 307 X\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
        assert await posted(site) == 307
        assert len(site.heads) == 1


async def test_no_credential_goes_out() -> None:
    async with web() as site:
        site.pages["/hook"] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        await posted(site)
        head = site.heads[0].lower()
    assert b"authorization" not in head
    assert b"cookie" not in head
