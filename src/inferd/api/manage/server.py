"""What the server says of itself: health, metrics, its documents, its state."""

from __future__ import annotations

import msgspec

from inferd import __version__
from inferd.api.docs import CSP, docs_page
from inferd.api.exchange import Exchange
from inferd.api.openapi import openapi_document
from inferd.api.routes import Json, Route
from inferd.api.services import Services


class Health(msgspec.Struct, frozen=True):
    """Alive, and able to serve."""

    status: str
    version: str


class ModelState(msgspec.Struct, frozen=True):
    """One model that was asked for."""

    model: str
    state: str
    in_flight: int
    slots: int
    queued: int
    memory_bytes: int
    pid: int | None
    loading: str | None


class GatewayState(msgspec.Struct, frozen=True):
    """One of several gateways."""

    index: int
    pid: int
    in_flight: int


class ServerStatus(msgspec.Struct, frozen=True):
    """What runs now."""

    version: str
    models: list[ModelState]
    loads: int
    evictions: int
    deaths: int
    gateways: list[GatewayState]
    """Of this machine; empty if there is one alone."""


async def health(exchange: Exchange, services: Services) -> None:
    """200 while usage can be recorded, else 503."""
    able = services.ledger.healthy
    body = Health("ok" if able else "storage is failing", __version__)
    await exchange.respond(200 if able else 503, msgspec.json.encode(body))


async def metrics(exchange: Exchange, services: Services) -> None:
    """Prometheus' text format."""
    kind = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
    await services.router.refresh(metrics=True)
    await exchange.respond(200, services.metrics.render(services.router), [kind])


async def status(exchange: Exchange, services: Services) -> None:
    """Replicas and queues."""
    await services.router.refresh()
    snapshot = services.router.snapshot()
    models = [
        ModelState(
            model=m.model,
            state=m.state,
            in_flight=m.in_flight,
            slots=m.slots,
            queued=m.queued,
            memory_bytes=m.memory_bytes,
            pid=m.pid,
            loading=services.router.loading(m.model),
        )
        for m in snapshot.models
    ]
    gateways = [GatewayState(g.index, g.pid, g.in_flight) for g in snapshot.gateways]
    body = ServerStatus(
        __version__, models, snapshot.loads, snapshot.evictions, snapshot.deaths, gateways
    )
    await exchange.respond(200, msgspec.json.encode(body))


class Documents:
    """The route table as a document and as a page; made at the first call."""

    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes
        self._document: Json | None = None

    def document(self) -> Json:
        """The OpenAPI document."""
        if self._document is None:
            self._document = openapi_document(self._routes)
        return self._document

    async def openapi(self, exchange: Exchange, _: Services) -> None:
        """GET /openapi.json."""
        await exchange.respond(200, msgspec.json.encode(self.document()))

    async def page(self, exchange: Exchange, services: Services) -> None:
        """GET /docs."""
        base = services.options.public_url or exchange.origin
        page = docs_page(self._routes, self.document(), base)
        kind = (b"content-type", b"text/html; charset=utf-8")
        await exchange.respond(200, page, [kind, CSP])
