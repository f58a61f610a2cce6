"""Texts of a database's language in every field, header, query and id: they stay texts."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio

from inferd.api.routes import Route
from inferd.api.table import ROUTES
from tests.awake import Stopwatch
from tests.gateway import Client, Gateway, Response, gateway
from tests.hostile.corpus_sql import SLEEPS, SQL

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS_MAX = 5.0
"""The texts that would sleep, sleep for 9 s and more."""
TOLD = re.compile(
    rb"sqlite|sqlalchemy|asyncpg|psycopg|syntax error|no such column|no such table|"
    rb"OperationalError|IntegrityError|ProgrammingError|Traceback",
    re.IGNORECASE,
)
TEXTS = (*(payload.text for payload in SQL), *SLEEPS)
WORDS = (
    *("before", "limit", "action", "account_id", "account", "by", "from", "to", "month", "model"),
    *("tag", "token", "filter", "return_to", "state", "code", "iss", "error", "jwtoken", "status"),
    *("checklist", "invoice_id", "format", "order", "sort", "q", "after", "cursor", "offset"),
)
HEADERS = (
    *("authorization", "x-api-key", "xi-api-key", "cookie", "user-agent", "x-forwarded-for"),
    *("forwarded", "idempotency-key", "x-request-id", "referer", "accept-language", "host"),
    *("content-type", "content-encoding", "origin", "x-deepinfra-tag", "anthropic-version"),
)
HASHES = ("/v1/admin/password", "/v1/sign-in", "/v1/password")
"""Each call costs the work of a password."""
DOCUMENTS = ("/openapi.json", "/docs", "/metrics")
"""Long answers that read no query."""
DESTROYS = {"DELETE /v1/me"}
"""Right calls that would end the test's own account."""


class House:
    """A gateway, and what its database held before."""

    def __init__(self, gate: Gateway, before: dict[str, Any]) -> None:
        self.gate = gate
        self.before = before
        self.slowest = (0.0, "")

    async def send(self, method: str, path: str, body: bytes = b"", **options: Any) -> Response:
        """One call, which must be answered soon and tell nothing of a database."""
        client: Client = options.pop("client", self.gate.client)
        gone = asyncio.Event()
        if path.startswith("/github/cli/login"):
            # It waits for a person; leave at once.
            gone.set()
        clock = Stopwatch()
        answer = await client.call(method, path, body, gone=gone, **options)
        seconds = clock.seconds()
        self.slowest = max(self.slowest, (seconds, f"{method} {path[:80]}"))
        said = f"{method} {path[:120]} {body[:120]!r} → {answer.status} {answer.body[:200]!r}"
        assert answer.status < 500, said
        assert seconds < SECONDS_MAX, said
        ours = f"{path} {body!r} {options}".lower().encode()
        told = [word for word in TOLD.findall(answer.body) if word.lower() not in ours]
        assert answer.status < 400 or not told, said
        return answer


def state(path: Path) -> dict[str, Any]:
    """The tables, and what must not change."""
    with closing(sqlite3.connect(path)) as connection:
        schema = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        accounts = connection.execute("SELECT id, name, credit_nanos FROM accounts").fetchall()
        tokens = connection.execute("SELECT id, digest, scopes, revoked_unix_ns FROM tokens")
        entries = connection.execute("SELECT request_id, cost_nanos FROM entries").fetchall()
        return {
            "schema": schema,
            "accounts": set(accounts),
            "tokens": set(tokens.fetchall()),
            "entries": set(entries),
            "check": connection.execute("PRAGMA integrity_check").fetchall(),
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    path: Path = tmp_path_factory.mktemp("sql")
    async with gateway(path) as gate:
        body = {"model": "test/echo", "messages": [{"role": "user", "content": "hi"}]}
        assert (await gate.client.post("/v1/chat/completions", body)).status == 200
        await gate.client.post("/v1/admin/password", {"login": "admin"})
        made = House(gate, state(gate.database_path))
        yield made
        after = state(gate.database_path)
        assert after["schema"] == made.before["schema"]
        assert after["check"] == [("ok",)]
        for table in ("accounts", "tokens", "entries"):
            assert made.before[table] <= after[table], table
        assert not Path("/tmp/inferd-evil.db").exists()


def base(struct: type) -> dict[str, Any]:
    """A body with every required field."""
    return {
        field.encode_name: value_of(field.encode_name, field.type)
        for field in msgspec.structs.fields(struct)
        if field.required
    }


def value_of(name: str, kind: Any) -> Any:
    if name == "model":
        return "test/echo"
    if name == "messages":
        return [{"role": "user", "content": "hi"}]
    if name == "max_tokens":
        return 2
    origin, arguments = get_origin(kind), get_args(kind)
    if hasattr(kind, "__metadata__"):
        return value_of(name, kind.__origin__)
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType):
        return value_of(name, arguments[0])
    if origin is list:
        return [value_of(name, arguments[0])]
    plain: dict[Any, Any] = {str: "x", int: 1, float: 1.0, bool: False}
    return plain.get(kind, {})


def holds_text(kind: Any) -> bool:
    """True if a text may stand somewhere in a value of this type."""
    return kind is str or any(holds_text(part) for part in get_args(kind))


def text_fields() -> Iterator[tuple[Route, str, Any]]:
    for route in ROUTES:
        twice = route.path.startswith("/v1/openai/")
        if route.takes is None or twice or f"{route.method} {route.path}" in DESTROYS:
            continue
        for field in msgspec.structs.fields(route.takes):
            if holds_text(field.type):
                yield route, field.encode_name, field.type


FIELDS = list(text_fields())


@pytest.mark.parametrize(
    ("route", "name", "kind"),
    FIELDS,
    ids=[f"{route.method} {route.path} {name}" for route, name, _ in FIELDS],
)
async def test_in_a_field(house: House, route: Route, name: str, kind: Any) -> None:
    assert route.takes is not None
    path, whole = concrete(route, "test/echo"), base(route.takes)
    for text in TEXTS[:: 6 if route.path in HASHES else 1]:
        for value in (text, [text]) if get_origin(kind) is not None else (text,):
            body = msgspec.json.encode({**whole, name: value})
            await house.send(route.method, path, body)


def concrete(route: Route, rest: str) -> str:
    return route.path.replace("{rest}", rest)


WITH_ID = [route for route in ROUTES if "{rest}" in route.path]


@pytest.mark.parametrize(
    "route", WITH_ID, ids=[f"{route.method} {route.path}" for route in WITH_ID]
)
async def test_in_an_id(house: House, route: Route) -> None:
    body = b"" if route.takes is None else msgspec.json.encode(base(route.takes))
    for text in TEXTS:
        answer = await house.send(route.method, concrete(route, text), body)
        assert answer.status >= 400 or route.method == "GET" or route.shape != "native", text


READING = [route for route in ROUTES if route.method == "GET" and "{rest}" not in route.path]


@pytest.mark.hostile
@pytest.mark.parametrize("route", READING, ids=[route.path for route in READING])
async def test_in_a_query(house: House, route: Route) -> None:
    words = WORDS[:1] if route.path in DOCUMENTS else WORDS
    for number, word in enumerate(words):
        # Each word meets a part of the texts, each text a part of the words.
        for text in TEXTS[number % 7 :: 7]:
            await house.send("GET", f"{route.path}?{word}={quote(text)}")
    for text in TEXTS[:: 12 if route.path in DOCUMENTS else 3]:
        await house.send("GET", f"{route.path}?{quote(text)}=1")


@pytest.mark.parametrize("header", HEADERS)
async def test_in_a_header(house: House, header: str) -> None:
    chat = base(
        next(route for route in ROUTES if route.path == "/v1/chat/completions").takes or House
    )
    bodies = (
        ("GET", "/v1/me", b""),
        ("GET", "/v1/usage", b""),
        ("POST", "/v1/chat/completions", msgspec.json.encode(chat)),
        ("POST", "/v1/sign-in", b'{"login": "a", "password": "b"}'),
    )
    stranger = Client(house.gate.client.app, token=None)
    for method, path, body in bodies:
        for text in TEXTS[:: 1 if method == "GET" else 5]:
            value = text.encode("utf-8", "surrogatepass").decode("latin-1")
            forms = (value, f"Bearer {value}", f"session={value}")
            for shown in forms if header in ("authorization", "cookie") else forms[:1]:
                for client in (house.gate.client, stranger):
                    await house.send(method, path, body, client=client, headers={header: shown})


async def test_no_text_opens_a_door(house: House) -> None:
    stranger = Client(house.gate.client.app, token=None)
    for text in TEXTS:
        value = text.encode("utf-8", "surrogatepass").decode("latin-1")
        for headers in (
            {"authorization": f"Bearer {value}"},
            {"x-api-key": value},
            {"cookie": f"session={value}"},
        ):
            answer = await house.send("GET", "/v1/me", client=stranger, headers=headers)
            assert answer.status == 401
        body = msgspec.json.encode({"login": text, "password": text})
        assert (await house.send("POST", "/v1/sign-in", body, client=stranger)).status in (401, 429)


async def test_a_late_answer_would_have_been_seen(house: House) -> None:
    assert 0 < house.slowest[0] < SECONDS_MAX, house.slowest
