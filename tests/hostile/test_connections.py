"""Connections that misbehave, against a real server beside a neighbour who streams."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec
import pytest

from tests.e2e.steps import eventually
from tests.hostile.attack import BASES, CHAT, JSON, faults_of, leaks
from tests.hostile.siege import Siege, is_idle
from tests.hostile.wire import Answer, ask, connected, parsed, port_of, request

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="package")]

IDLE = 300
"""Connections that say nothing."""


def sound(siege: Siege, **fields: object) -> bytes:
    """The body of a chat that would be answered."""
    return msgspec.json.encode({**BASES[CHAT], "model": siege.model, **fields})


def bearer(siege: Siege) -> dict[str, str]:
    """The attacker's headers."""
    return {"authorization": f"Bearer {siege.attacker}", **JSON}


async def send(siege: Siege, raw: bytes) -> Answer:
    return await ask(port_of(siege.server.url), raw)


async def calm(siege: Siege, attack: Callable[[], Awaitable[None]]) -> None:
    """Attack while the neighbour streams; nothing may be lost."""
    faults: list[str] = []
    async with siege.beside_a_neighbour(faults):
        await attack()
    assert not faults + await siege.wounds()


PATHS: dict[str, tuple[str, int]] = {
    "two slashes": ("/v1//chat/completions", 404),
    "slashes in front": ("//v1/chat/completions", 404),
    "capitals": ("/V1/chat/completions", 404),
    "a dot at the end": ("/v1/chat/completions.", 404),
    "a slash at the end": ("/v1/chat/completions/", 404),
    "dots": ("/v1/./chat/completions", 404),
    "two dots": ("/v1/openai/../chat/completions", 404),
    "dots in percents": ("/v1/%2e%2e/metrics", 404),
    "a slash in percents": ("/v1%2fchat%2fcompletions", 200),
    "NUL": ("/v1/chat/completions%00", 404),
    "NUL and an ending": ("/v1/chat/completions%00.json", 404),
    "percents twice": ("/v1/chat%252fcompletions", 404),
    "a lone percent": ("/v1/chat/completions%", 404),
    "broken UTF-8": ("/v1/chat/completions%ff%fe", 404),
    "overlong UTF-8": ("/v1/%c0%ae%c0%ae/metrics", 404),
    "a line break": ("/v1/chat/completions%0d%0aset-cookie:x=1", 404),
    "a semicolon": ("/v1/chat/completions;x=1", 404),
    "a backslash": ("/v1\\chat\\completions", 404),
    "a backslash in percents": ("/v1/chat%5ccompletions", 404),
    "a query": ("/v1/chat/completions?admin=1&by=' OR 1=1", 400),
    "SQL in the query": ("/v1/chat/completions?by=%27%20UNION%20SELECT%20digest", 200),
    "a fragment": ("/v1/chat/completions#/metrics", 200),
    "a query of 8 000": ("/v1/chat/completions?" + "a" * 8000, 200),
    "a path of 8 000": ("/v1/" + "a" * 8000, 404),
    "a whole URL": ("http://169.254.169.254/latest/meta-data", 404),
    "a whole URL of ours": ("http://x/v1/chat/completions", 200),
    "an asterisk": ("*", 404),
    "a model that is a path": ("/v1/inference/../../etc/passwd", 404),
    "a model in percents": ("/v1/inference/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404),
    "a model with NUL": ("/v1/inference/test/model%00", 404),
    "a model of 8 000": ("/v1/inference/" + "a" * 8000, 404),
    "a model of slashes": ("/v1/inference/" + "/" * 8000, 404),
    "a token by SQL": ("/v1/api-tokens/id/'%20OR%201=1", 405),
    "shutdown": ("/shutdown", 404),
    "pause": ("/pause", 404),
    "collective_rpc": ("/collective_rpc", 404),
    "slots": ("/slots", 404),
    "props": ("/props", 404),
    "completion": ("/completion", 404),
    "embedding": ("/embedding", 404),
    "lora adapters": ("/lora-adapters", 404),
    "config": ("/config/yaml", 404),
    "environment": ("/.env", 404),
    "git": ("/.git/config", 404),
    "debug": ("/debug/pprof/", 404),
}


@pytest.mark.parametrize("name", PATHS)
async def test_a_strange_path_leads_nowhere(siege: Siege, name: str) -> None:
    path, status = PATHS[name]
    answer = await send(siege, request("POST", path, bearer(siege), sound(siege)))
    assert answer.status == status, answer.body[:200]
    assert not leaks(answer.body, siege.attacker, sent=path.encode())
    assert "set-cookie" not in answer.headers


METHODS: dict[str, int] = {
    "GET": 405,
    "PUT": 405,
    "PATCH": 405,
    "DELETE": 405,
    "OPTIONS": 405,
    "HEAD": 405,
    "TRACE": 405,
    "PROPFIND": 405,
    "PURGE": 405,
    "FOO": 400,
    "post": 400,
    "P" * 5000: 400,
}


@pytest.mark.parametrize("method", METHODS, ids=[method[:12] for method in METHODS])
async def test_a_strange_method_is_refused(siege: Siege, method: str) -> None:
    raw = request(method, "/v1/chat/completions", bearer(siege), sound(siege))
    answer = await send(siege, raw)
    assert answer.status == METHODS[method]
    assert siege.attacker.encode() not in answer.body


async def test_connect_opens_no_tunnel(siege: Siege) -> None:
    for target in ("127.0.0.1:22", "169.254.169.254:80", "/v1/chat/completions"):
        answer = await send(siege, request("CONNECT", target, bearer(siege)))
        assert answer.status in (400, 404, 405)


OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override", "_method")


@pytest.mark.parametrize("name", OVERRIDES)
async def test_a_method_in_a_header_is_not_honoured(siege: Siege, name: str) -> None:
    headers = {**bearer(siege), name: "DELETE"}
    answer = await send(siege, request("POST", "/v1/chat/completions", headers, sound(siege)))
    assert answer.status == 200


HEADERS: dict[str, tuple[dict[str, str], int]] = {
    "SQL": ({"authorization": "Bearer ' OR '1'='1"}, 401),
    "SQL union": ({"authorization": "Bearer x' UNION SELECT digest FROM tokens --"}, 401),
    "SQL that waits": ({"authorization": "Bearer x'; SELECT randomblob(1000000000) --"}, 401),
    "SQL in x-api-key": ({"authorization": "", "x-api-key": "' OR 1=1 --"}, 401),
    "SQL in the cookie": ({"authorization": "", "cookie": "session=' OR 1=1 --"}, 403),
    "an LDAP look-up": ({"authorization": "Bearer ${jndi:ldap://127.0.0.1/x}"}, 401),
    "Latin": ({"authorization": "Bearer \xff\xfe\x80"}, 401),
    "60 000 letters": ({"authorization": "Bearer " + "a" * 60_000}, 401),
    "no scheme": ({"authorization": "token"}, 401),
    "Basic": ({"authorization": "Basic YWRtaW46YWRtaW4="}, 401),
    "only the scheme": ({"authorization": "Bearer"}, 401),
    "JWT without a signature": ({"authorization": "Bearer jwt:eyJhbGciOiJub25lIn0.e30."}, 401),
    "the address of a proxy": ({"authorization": "", "x-forwarded-for": "127.0.0.1"}, 401),
    "a user from a proxy": ({"authorization": "", "x-forwarded-user": "admin"}, 401),
    "a path from a proxy": ({"x-original-url": "/metrics", "x-rewrite-url": "/metrics"}, 200),
    "a host of somebody": ({"host": "evil.example"}, 200),
    "a tier of nonsense": ({"x-deepinfra-service-tier": "\xff" * 5000}, 200),
    "an encoding": ({"accept-encoding": "gzip;q=NaN, *;q=1e309"}, 200),
    "a range": ({"range": "bytes=0-" + ",0-" * 5000}, 200),
    "100 Continue": ({"expect": "100-continue"}, 200),
    "an upgrade": ({"upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}, 200),
    "a websocket": ({"upgrade": "websocket", "sec-websocket-key": "x"}, 200),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_a_strange_header_does_nothing(siege: Siege, name: str) -> None:
    changes, status = HEADERS[name]
    raw = request("POST", "/v1/chat/completions", {**bearer(siege), **changes}, sound(siege))
    answer = await send(siege, raw)
    final = parsed(answer.body) if answer.status == 100 else answer
    assert final.status == status, answer.body[:200]
    if status == 401:
        assert not faults_of("openai", status, final.body)
        assert not leaks(final.body)


def framing(siege: Siege) -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Requests whose length is told in two ways, or not at all; and what they may get."""
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\n"
    head += f"authorization: Bearer {siege.attacker}\r\n"
    smuggled = "GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n"

    def raw(rest: str) -> bytes:
        return (head + rest).encode()

    return {
        "two lengths": (raw("content-length: 2\r\ncontent-length: 5\r\n\r\n{}"), (400,)),
        "two lengths in one": (raw("content-length: 2, 5\r\n\r\n{}"), (400,)),
        "a length with a sign": (raw("content-length: +2\r\n\r\n{}"), (400,)),
        "a length in hexadecimal": (raw("content-length: 0x2\r\n\r\n{}"), (400,)),
        "a length below nothing": (raw("content-length: -1\r\n\r\n{}"), (400,)),
        "a length of 64 bits": (raw(f"content-length: {2**64}\r\n\r\n{{}}"), (400,)),
        "a length of 5 000 digits": (raw(f"content-length: {'9' * 5000}\r\n\r\n"), (400,)),
        "10 GB to come": (raw("content-length: 10000000000\r\n\r\n{}"), (413,)),
        "length and chunks": (
            raw(f"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
            (400,),
        ),
        "chunks twice": (raw("transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), (400,)),
        "chunks and identity": (raw("transfer-encoding: identity, x\r\n\r\n{}"), (400,)),
        "a chunk of no length": (raw("transfer-encoding: chunked\r\n\r\nzz\r\n{}"), (400,)),
        "a chunk of 2 ** 64": (
            raw("transfer-encoding: chunked\r\n\r\n" + "f" * 17 + "\r\n{}"),
            (400,),
        ),
        "a chunk below nothing": (raw("transfer-encoding: chunked\r\n\r\n-1\r\n{}"), (400,)),
        "a header with a space": (raw("content-length : 2\r\n\r\n{}"), (400,)),
        "a folded header": (raw("content-length: 2\r\n x: y\r\n\r\n{}"), (400,)),
        "a header without a name": (raw(": x\r\ncontent-length: 2\r\n\r\n{}"), (400,)),
        "NUL in a header": (raw("x: a\0b\r\ncontent-length: 2\r\n\r\n{}"), (400,)),
        "a lone CR in a header": (raw("x: a\rb\r\ncontent-length: 2\r\n\r\n{}"), (400,)),
        "HTTP/0.9": (b"GET /health\r\n\r\n", (200,)),
        "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,)),
        "HTTP/1.1.1": (b"GET /health HTTP/1.1.1\r\n\r\n", (400,)),
        "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100, (400,)),
        "SSH": (b"SSH-2.0-OpenSSH_9.0\r\n", (400,)),
        "pickle": (b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.\n", (400,)),
        "nothing but lines": (b"\r\n" * 200_000, (0, 400)),
    }


async def test_a_length_told_wrongly_is_refused_and_nothing_is_smuggled(siege: Siege) -> None:
    faults: list[str] = []
    for name, (raw, allowed) in framing(siege).items():
        answer = await ask(port_of(siege.server.url), raw, seconds_max=3)
        if answer.status not in allowed:
            faults.append(f"{name}: {answer.status}, not {allowed}: {answer.body[:80]!r}")
        if b"HTTP/1.1 " in answer.body:
            faults.append(f"{name}: two answers")
        faults += [f"{name}: tells {hit}" for hit in leaks(answer.body)]
    assert not faults, "\n".join(faults)


async def test_a_million_of_headers_ends_the_connection(siege: Siege) -> None:
    async def attack() -> None:
        for filler in (b"x: " + b"a" * 1_000_000 + b"\r\n", b"x: a\r\n" * 200_000):
            raw = b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\n" + filler + b"\r\n"
            answer = await send(siege, raw)
            assert answer.status in (0, 400)
            assert answer.seconds < 3

    await calm(siege, attack)


async def test_idle_and_half_open_connections_take_nothing_from_others(siege: Siege) -> None:
    halves = (
        b"",
        b"P",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\n",
        request("POST", CHAT, {**bearer(siege), "content-length": "1000"}, b'{"model": '),
        request(
            "POST", CHAT, {**bearer(siege), "content-length": "", "transfer-encoding": "chunked"}
        ),
    )

    async def attack() -> None:
        async with AsyncExitStack() as stack:
            for number in range(IDLE):
                opened = connected(port_of(siege.server.url))
                _, writer = await stack.enter_async_context(opened)
                writer.write(halves[number % len(halves)])
            answer = await send(siege, request("POST", CHAT, bearer(siege), sound(siege)))
            assert answer.status == 200
            assert answer.seconds < 3

    await calm(siege, attack)


async def test_a_body_that_breaks_off_is_forgotten(siege: Siege) -> None:
    before = len(siege.server.entries())
    for length in ("100000", "9999999"):
        async with connected(port_of(siege.server.url)) as (_, writer):
            headers = {**bearer(siege), "content-length": length}
            writer.write(request("POST", CHAT, headers, sound(siege)))
            await writer.drain()
    assert (await send(siege, request("POST", CHAT, bearer(siege), sound(siege)))).status == 200
    assert len(siege.server.entries()) == before + 1


async def test_endless_chunks_stop_at_the_cap(siege: Siege) -> None:
    headers = {**bearer(siege), "content-length": "", "transfer-encoding": "chunked"}
    tiny, large = b"1\r\n \r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"

    async def attack() -> None:
        for chunks in (tiny * 300_000, large * 160):
            raw = request("POST", CHAT, headers) + chunks
            answer = await send(siege, raw + b"0\r\n\r\n")
            assert answer.status == (413 if chunks[:1] != b"1" or len(chunks) > 10**7 else 400)
            assert answer.seconds < 3

    await calm(siege, attack)


async def test_a_thousand_pipelined_requests_end_the_connection(siege: Siege) -> None:
    one = request("GET", "/v1/openai/models", {"content-length": ""}, close=False)

    async def attack() -> None:
        answer = await send(siege, one * 1000)
        assert answer.status in (0, 200)
        assert answer.seconds < 5

    await calm(siege, attack)


async def test_who_does_not_read_his_stream_holds_up_nobody(siege: Siege) -> None:
    """His bytes stay in bounded buffers: the gateway does not grow by what he does not read."""
    body = sound(
        siege, stream=True, max_tokens=2000, ignore_eos=True, logprobs=True, top_logprobs=20
    )
    raw = request("POST", CHAT, bearer(siege), body)

    async def attack() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(4):
                peer = stack.enter_context(socket.socket())
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                peer.settimeout(0)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(peer, ("127.0.0.1", port_of(siege.server.url)))
                await loop.sock_sendall(peer, raw)
            answer = await send(siege, request("POST", CHAT, bearer(siege), sound(siege)))
            assert answer.status == 200

    await calm(siege, attack)
    await eventually(lambda: is_idle(siege))


async def test_a_hundred_who_leave_at_once_leave_nothing_behind(siege: Siege) -> None:
    raw = request("POST", CHAT, bearer(siege), sound(siege, max_tokens=500, ignore_eos=True))

    async def attack() -> None:
        for _ in range(100):
            async with connected(port_of(siege.server.url)) as (_, writer):
                writer.write(raw)
                await writer.drain()

    await calm(siege, attack)
    await eventually(lambda: is_idle(siege))
