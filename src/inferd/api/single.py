"""How the endpoints of all tasks but text generation answer.

An endpoint decodes its wire body into a Request, wraps it with `order` and brings a Teller, which
turns the task's events into its dialect's words. `answer` admits, computes, meters and sends, in
one of three manners:

    "whole"   one body at the end: what `last` returns
    "events"  server-sent events: what `say` returns for each event, then `last`
    "bytes"   a raw stream, such as audio: the same, without frames around it
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Literal, Protocol, runtime_checkable

from inferd.admission.work import Dialect, Order, Work
from inferd.api.deferred import admit, deferred
from inferd.api.exchange import JSON, Exchange
from inferd.api.generation import service_tier
from inferd.api.services import Services
from inferd.api.slices import Body, even, joined
from inferd.api.stream import EventStream
from inferd.api.tag import tag_of
from inferd.catalog.card import ModelCard
from inferd.errors import ClientGone, InferdError
from inferd.tasks.every import ENDINGS, Ending, Event, Request

Manner = Literal["whole", "events", "bytes"]

Headers = list[tuple[bytes, bytes]]


class Teller(Protocol):
    """One dialect's way to tell what a task brought. Sees each event once, in order."""

    def say(self, event: Event, work: Work) -> Body:
        """What to send now when streaming. Of a whole answer it is not sent: keep what you need."""
        ...

    def last(self, ending: Ending, work: Work) -> Body:
        """The body of a whole answer; the final bytes of a streamed one. Long ones in pieces."""
        ...

    def failed(self, error: InferdError) -> bytes:
        """The last event of server-sent events that broke; the other manners never ask."""
        ...

    def headers(self) -> Headers:
        """Of an answer that is not JSON: its content type and what goes with it; else []."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A Teller that has something to do before its whole body."""

    async def prepare(self) -> None:
        """Called once, after all events."""
        ...


def order(  # noqa: PLR0913 what the wire says of any call
    exchange: Exchange,
    card: ModelCard,
    request: Request,
    dialect: Dialect,
    *,
    streamed: bool = False,
    tier: str | None = None,
    fail_fast: bool = False,
    end_user: str | None = None,
) -> Order:
    """An Order of this exchange. `tier` as the body spells it; None: the header decides."""
    return Order(
        request_id=exchange.request_id,
        card=card,
        request=request,
        dialect=dialect,
        streamed=streamed,
        end_user=end_user,
        tag=tag_of(exchange.headers),
        tier=service_tier(exchange, tier),
        fail_fast=fail_fast,
    )


async def answer(
    exchange: Exchange, services: Services, order: Order, teller: Teller, manner: Manner = "whole"
) -> None:
    """Admit, compute, answer. The exchange's owner settles whatever did not come to its end."""
    if await services.idempotency.replayed(exchange, order.card.name):
        return
    if await deferred(exchange, services, order, streamed=manner != "whole"):
        return
    exchange.watch()
    work = exchange.work = await admit(exchange, services, order)
    if manner == "whole":
        await _whole(exchange, services, work, teller)
    elif manner == "events":
        await _events(exchange, services, work, teller)
    else:
        await _bytes(exchange, services, work, teller)


async def _whole(exchange: Exchange, services: Services, work: Work, teller: Teller) -> None:
    async with aclosing(work.events()) as events:
        async for event in events:
            if isinstance(event, ENDINGS):
                if isinstance(teller, Prepares):
                    await teller.prepare()
                body = teller.last(event, work)
                await _respond(exchange, services, body, [*_timing(work), *teller.headers()])
            else:
                teller.say(event, work)


async def _respond(exchange: Exchange, services: Services, body: Body, headers: Headers) -> None:
    """Send a body; one that comes in many pieces goes out as they are made, without a length."""
    if isinstance(body, bytes):
        await exchange.respond(200, body, headers)
        return
    pieces = even(body)
    piece, following = next(pieces), next(pieces, None)
    if following is None:
        await exchange.respond(200, piece, headers)
        return
    named = any(name == b"content-type" for name, _ in headers)
    await exchange.start(200, [*([] if named else [JSON]), *headers])
    while following is not None:
        await _write(exchange, services, piece)
        # A client that reads fast never makes `write` wait.
        await asyncio.sleep(0)
        piece, following = following, next(pieces, None)
    await exchange.end(piece)


async def _write(exchange: Exchange, services: Services, chunk: bytes) -> None:
    try:
        async with asyncio.timeout(services.options.stall_seconds):
            await exchange.write(chunk)
    except TimeoutError:
        exchange.gone = True
        raise ClientGone("The client stopped reading.") from None


async def _events(exchange: Exchange, services: Services, work: Work, teller: Teller) -> None:
    stream = EventStream(exchange, services.options, services.clock)
    try:
        async with aclosing(work.events()) as events:
            async for event in events:
                if isinstance(event, ENDINGS):
                    await stream.end(await joined(teller.last(event, work)))
                elif said := teller.say(event, work):
                    await stream.send(await joined(said))
    except InferdError as error:
        if not stream.started:
            raise
        await stream.end(teller.failed(error))
    finally:
        await stream.close()


async def _bytes(exchange: Exchange, services: Services, work: Work, teller: Teller) -> None:
    """Headers go out with the first bytes, so that an early error keeps its status."""

    async def send(chunk: bytes) -> None:
        if not exchange.status:
            await exchange.start(200, [*_timing(work), *teller.headers()])
        await _write(exchange, services, chunk)

    async with aclosing(work.events()) as events:
        async for event in events:
            if isinstance(event, ENDINGS):
                await send(await joined(teller.last(event, work)))
                await exchange.end()
            elif said := teller.say(event, work):
                await send(await joined(said))


def _timing(work: Work) -> Headers:
    return [
        (b"x-queue-ms", b"%d" % work.queue_ms),
        (b"x-inference-ms", b"%d" % work.runtime_ms),
    ]
