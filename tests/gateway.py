"""A whole gateway inside the test process: real rooms, SQLite, echo engines, no child, no socket.

Requests go through the ASGI application itself; a client that leaves is an ASGI disconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from inferd.access.changes import Changes
from inferd.access.installation import installation_key
from inferd.access.limit_book import LimitBook
from inferd.access.limits import Limits
from inferd.access.openid import Provider
from inferd.access.tokens import Tokens
from inferd.admission.gate import Gate
from inferd.admission.work import Rooms
from inferd.api.app import Application, build
from inferd.api.services import ApiOptions, Services
from inferd.catalog.card import ModelCard, PathSource, read_card
from inferd.catalog.catalog import Catalog
from inferd.clock import Clock, SystemClock
from inferd.engines.base import Engine, Request, Resources
from inferd.engines.registry import engine_class
from inferd.metering.ledger import Ledger
from inferd.metering.prices import PriceBook
from inferd.serving.replica import Flight, ReplicaFacts
from inferd.serving.router import Router, RouterOptions
from inferd.storage.database import Database, migrate
from inferd.storage.writers import ledger_writer
from inferd.tasks.base import Stopped
from inferd.tasks.every import Event
from inferd.tasks.text_generation import Text
from tests.servers import PostgresServer

POSTGRES: list[PostgresServer] = []
"""`pytest --postgres` puts a server here; every gateway is on a database of its own then."""
ADMIN_TOKEN = "bootstrap-token-of-the-tests-0123456789"

ECHO_CARD = """
name = "test/echo"
task = "text-generation"
engine = "echo"
context_length = 1000
licence = "none"
summary = "Says what it hears."
slots = {slots}
tags = {tags}
[price]
input = "1"
cached = "0.5"
output = "2"
"""


def echo_card(
    name: str = "test/echo", *, slots: int = 8, tags: tuple[str, ...] = (), **changes: Any
) -> ModelCard:
    """A card of the echo engine."""
    text = ECHO_CARD.format(slots=slots, tags=list(tags))
    card = read_card(text.encode(), origin="the test")
    return msgspec.structs.replace(card, name=name, **changes)


class InProcessReplica:
    """A replica without a process: the engine runs in the test's own event loop."""

    def __init__(self, card: ModelCard, runtime_dir: Path, flights: list[Flight]) -> None:
        self._flights = flights
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._card = card
        self._runtime_dir = runtime_dir
        self._engine: Engine = engine_class(card.engine)()

    async def start(self) -> ReplicaFacts:
        """Load."""
        files = {
            file.role: file.source.path
            for file in self._card.files
            if isinstance(file.source, PathSource)
        }
        resources = Resources(files=files, threads=1, runtime_dir=str(self._runtime_dir))
        features = await asyncio.to_thread(self._engine.load, self._card, resources)
        facts = ReplicaFacts(features.slots, features.context_length, memory_bytes=1)
        return msgspec.structs.replace(facts, spare=features.spare)

    async def run(self, request_id: str, request: Request, flight: Flight) -> AsyncGenerator[Event]:
        """Compute; on leaving early, cancel and take the final usage."""
        cancel = asyncio.Event()
        flight.stage = "prefill"
        self._flights.append(flight)
        async with aclosing(self._engine.run(request, cancel)) as events:
            try:
                async for event in events:
                    if isinstance(event, Text):
                        flight.stage = "decode"
                    flight.usage = getattr(event, "usage", flight.usage)
                    yield event
            finally:
                cancel.set()
                async for event in events:
                    if isinstance(event, Stopped):
                        flight.usage = event.usage

    async def stop(self) -> None:
        """Close the engine."""
        await self._engine.close()

    def progress(self) -> str:
        """Nothing to wait for."""
        return "Loading"


@dataclass
class Response:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    def events(self) -> list[Any]:
        """The stream's JSON events; comments and the terminator apart."""
        lines = [line for line in self.body.split(b"\n\n") if line.startswith(b"data: ")]
        return [msgspec.json.decode(line[6:]) for line in lines if line != b"data: [DONE]"]


@dataclass
class Client:
    """Talks ASGI to the application."""

    app: Application
    token: str | None = ADMIN_TOKEN
    headers: dict[str, str] = field(default_factory=dict[str, str])
    address: str = ""
    """Where it calls from; "": not told."""

    async def post(self, path: str, body: Any = None, **options: Any) -> Response:
        """POST JSON, or bytes as they are."""
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.call("POST", path, raw, **options)

    async def get(self, path: str, **options: Any) -> Response:
        """GET."""
        return await self.call("GET", path, b"", **options)

    async def call(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        headers: dict[str, str] | None = None,
        gone: asyncio.Event | None = None,
        sent: asyncio.Event | None = None,
    ) -> Response:
        """One request. `gone` set: the client leaves. `sent` is set at the first body byte."""
        shown = {**self.headers, **(headers or {})}
        if self.token is not None and "authorization" not in shown:
            shown["authorization"] = f"Bearer {self.token}"
        route, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": route,
            "raw_path": route.encode(),
            "query_string": query.encode(),
            "client": (self.address, 1) if self.address else None,
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in shown.items()],
        }
        exchange = _AsgiExchange(body, gone or asyncio.Event(), sent or asyncio.Event())
        await self.app(scope, exchange.receive, exchange.send)
        return Response(exchange.status, exchange.headers, bytes(exchange.body))


class _AsgiExchange:
    def __init__(self, body: bytes, gone: asyncio.Event, sent: asyncio.Event) -> None:
        self.status, self.headers, self.body = 0, dict[str, str](), bytearray()
        self._request = [{"type": "http.request", "body": body, "more_body": False}]
        self._gone, self._sent = gone, sent

    async def receive(self) -> dict[str, Any]:
        if self._request:
            return self._request.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                both = [self.headers.get(name.decode(), ""), value.decode("latin-1")]
                self.headers[name.decode()] = ", ".join(filter(None, both))
            return
        self.body += message.get("body", b"")
        if message.get("body"):
            self._sent.set()


@dataclass
class Gateway:
    """The rooms, for tests that look behind the wire."""

    services: Services
    client: Client
    account_id: str
    database_path: Path
    flights: list[Flight]
    """Every request that reached a replica, in order."""


async def until(holds: Callable[[], bool]) -> None:
    """Let the event loop turn until something holds; ten seconds at most."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


async def _migrated(path: Path) -> str:
    where = await POSTGRES[0].migrated() if POSTGRES else f"sqlite:///{path}"
    migrate(where)
    return where


def _router(
    folder: Path, flights: list[Flight], clock: Clock, options: RouterOptions | None
) -> Router:
    return Router(
        lambda card: InProcessReplica(card, folder, flights),
        clock,
        options or RouterOptions(memory_bytes=1 << 30),
        lambda card: card.memory_bytes or 1,
    )


async def _client(stack: AsyncExitStack, services: Services) -> Client:
    app = build(services)
    for later in (services.deliveries, services.webhooks, services.videos):
        stack.push_async_callback(later.close)
    await app.begin()
    return Client(app)


@asynccontextmanager
async def gateway(
    tmp_path: Path,
    *cards: ModelCard,
    options: ApiOptions | None = None,
    router_options: RouterOptions | None = None,
    concurrency: int = 200,
    clock: Clock | None = None,
    providers: Mapping[str, Provider] | None = None,
    where: str | None = None,
) -> AsyncGenerator[Gateway]:
    """Build every room over a fresh database, or the one at `where`, and take it down again."""
    async with AsyncExitStack() as stack:
        clock = clock or SystemClock()
        path, flights = tmp_path / "inferd.db", list[Flight]()
        where = where or await _migrated(path)
        database = Database(where, directory=tmp_path)
        stack.push_async_callback(database.close)
        changes = Changes(database, clock)
        writer = ledger_writer(where, tmp_path)
        stack.push_async_callback(writer.close)
        tokens = Tokens(database, installation_key(tmp_path), clock, changes=changes)
        await tokens.ensure_admin(ADMIN_TOKEN)
        ledger = Ledger(writer, database, clock, "gateway.0" if POSTGRES else "")
        await ledger.start()
        stack.push_async_callback(ledger.close)
        prices = PriceBook(database, clock)
        known = cards or (echo_card(),)
        await prices.sync(known)
        router = _router(tmp_path, flights, clock, router_options)
        stack.push_async_callback(router.close)
        live = Limits(clock, concurrency)
        limits = await LimitBook.opened(database, live, changes, clock)
        services = Services(
            catalog=Catalog(known),
            router=router,
            tokens=tokens,
            ledger=ledger,
            prices=prices,
            database=database,
            gate=Gate(Rooms(router, ledger, live, clock), prices),
            changes=changes,
            limits=limits,
            clock=clock,
            options=options or ApiOptions(),
            media_dir=tmp_path,
            providers=providers or {},
        )
        account_id = (await tokens.authenticate(ADMIN_TOKEN)).account_id
        yield Gateway(services, await _client(stack, services), account_id, path, flights)
