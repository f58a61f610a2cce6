"""How every inference endpoint answers: one path for streams and plain bodies.

An endpoint decodes its wire body into a Request and brings an Answer that speaks its dialect;
this module admits the work, folds its events and sends what the Answer makes of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from inferd.access.in_flight_bytes import Holding
from inferd.admission.work import Order, Work
from inferd.api.body import check_media_type, decode
from inferd.api.cut_texts import CUT_BYTES_MIN, CutTexts, Raw, cut_out
from inferd.api.deferred import admit, deferred
from inferd.api.exchange import Exchange
from inferd.api.multipart import decode_form, is_multipart
from inferd.api.services import Services
from inferd.api.steps import STEP_BYTES
from inferd.api.stream import EventStream
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, InferdError, PayloadTooLarge, TooManyRequests
from inferd.tasks.base import TaskName
from inferd.tasks.text_generation import Done, Text

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


_IN_LOOP_BYTES = STEP_BYTES
"""Longer bodies are decoded in a thread: nobody's stream waits for them."""


class Answer(Protocol):
    """One dialect's way to say an answer. Sees each event once, in order."""

    def text(self, event: Text, work: Work) -> bytes:
        """The events for new text when streaming; b"" if there is nothing to send yet."""
        ...

    def fold(self, event: Text) -> None:
        """Keep new text for a plain body."""
        ...

    def last(self, done: Done, work: Work) -> bytes:
        """The final events of a stream, usage and terminator included."""
        ...

    def body(self, done: Done, work: Work) -> bytes:
        """The plain JSON body."""
        ...

    def failed(self, error: InferdError) -> bytes:
        """The last event of a stream that broke after its headers were sent."""
        ...


async def read(
    exchange: Exchange,
    services: Services,
    decoder: msgspec.json.Decoder[T],
    *,
    bytes_max: int | None = None,
) -> T:
    """The decoded JSON body, within the caps; `bytes_max` raises the one on its size."""
    check_media_type(exchange.headers.get(b"content-type"))
    return await read_bytes(
        exchange, services, lambda body: decode(body, decoder), bytes_max=bytes_max
    )


async def read_cut(
    exchange: Exchange,
    services: Services,
    decoder: msgspec.json.Decoder[T],
    *,
    text_bytes_max: int | None = None,
) -> T:
    """The decoded JSON body of a call that may bring media, whose cap holds for it.

    Long base64 is cut out, and `MediaDoor` takes it. What is left is text, with a cap of its own:
    `text_bytes_max`, or that of other bodies.
    """
    check_media_type(exchange.headers.get(b"content-type"))
    options = services.options
    text_max = text_bytes_max or options.body_bytes_max

    def reading(body: Raw) -> tuple[T, list[memoryview]]:
        rest, texts = cut_out(body) if len(body) > CUT_BYTES_MIN else (body, [])
        if len(rest) > text_max:
            raise PayloadTooLarge(
                f"The body, its pictures and recordings apart, is over {text_max} bytes."
            )
        return decode(rest, decoder), texts

    holding = services.bodies.hold(exchange.caller.account_id)
    try:
        cap = max(options.media_body_bytes_max, text_max)
        decoded, texts = await _reading(exchange, services, reading, cap, holding)
        if texts:
            exchange.cut = CutTexts(texts, holding.release)
    finally:
        if exchange.cut is None:
            holding.release()
    return decoded


async def read_form_or_json(
    exchange: Exchange, services: Services, decoder: msgspec.json.Decoder[S], struct: type[S]
) -> S:
    """The decoded body of a native route: JSON, or a multipart form."""
    content_type = exchange.headers.get(b"content-type")
    if content_type is None or not is_multipart(content_type):
        return await read(exchange, services, decoder)
    return await read_bytes(
        exchange, services, lambda body: decode_form(body, content_type, struct)
    )


async def read_bytes(
    exchange: Exchange,
    services: Services,
    reading: Callable[[Raw], T],
    *,
    bytes_max: int | None = None,
) -> T:
    """What `reading` makes of the raw body, which is counted while it lies in memory."""
    cap = bytes_max or services.options.body_bytes_max
    holding = services.bodies.hold(exchange.caller.account_id)
    try:
        return await _reading(exchange, services, reading, cap, holding)
    finally:
        holding.release()


async def _reading(
    exchange: Exchange,
    services: Services,
    reading: Callable[[Raw], T],
    bytes_max: int,
    holding: Holding,
) -> T:
    body = await exchange.raw_body(
        bytes_max=bytes_max, seconds_max=services.options.body_seconds_max, holding=holding
    )
    if len(body) <= _IN_LOOP_BYTES:
        return reading(body)
    return await asyncio.to_thread(reading, body)


def cache_scope(exchange: Exchange, services: Services) -> str:
    """Whose cached prompt prefixes the caller may reuse."""
    return "" if services.options.share_prefix_cache else exchange.caller.account_id


def find_model(services: Services, name: str, task: TaskName) -> ModelCard:
    """The card of a model that does this task. Raises ModelNotFound or BadRequest."""
    card = services.catalog.serving(name)
    if card.task != task:
        raise BadRequest(f"The model {name} does {card.task}, not {task}.", param="model")
    return card


class Attempt(NamedTuple):
    """One order, and how its answer is said."""

    order: Order
    answer: Answer


async def run(exchange: Exchange, services: Services, *attempts: Attempt) -> None:
    """Admit, compute, answer. The exchange's owner settles whatever did not come to its end.

    A later attempt is made only if the one before was turned away with 429 before any output.
    """
    first = attempts[0]
    if await services.idempotency.replayed(exchange, first.order.card.name):
        return
    if await deferred(exchange, services, first.order, streamed=first.order.streamed):
        return
    exchange.watch()
    if not first.order.streamed:
        await _try_all(exchange, services, attempts, None)
        return
    stream = EventStream(exchange, services.options, services.clock)
    try:
        await _try_all(exchange, services, attempts, stream)
    except InferdError as error:
        if not stream.started:
            raise
        await stream.end(first.answer.failed(error))
    finally:
        await stream.close()


async def _try_all(
    exchange: Exchange,
    services: Services,
    attempts: Sequence[Attempt],
    stream: EventStream | None,
) -> None:
    for attempt in attempts[:-1]:
        try:
            await _try(exchange, services, attempt, stream)
        except TooManyRequests:
            work = exchange.work
            if work is not None and work.flight.stage == "decode":
                raise
            if work is not None:
                await work.close()
                exchange.work = None
        else:
            return
    await _try(exchange, services, attempts[-1], stream)


async def _try(
    exchange: Exchange, services: Services, attempt: Attempt, stream: EventStream | None
) -> None:
    work = exchange.work = await admit(exchange, services, attempt.order)
    if stream is None:
        await _plain(exchange, work, attempt.answer)
    else:
        await _stream(stream, work, attempt.answer)


async def _plain(exchange: Exchange, work: Work, answer: Answer) -> None:
    async with aclosing(work.events()) as events:
        async for event in events:
            if type(event) is Text:
                answer.fold(event)
            elif type(event) is Done:
                timing = [
                    (b"x-queue-ms", b"%d" % work.queue_ms),
                    (b"x-inference-ms", b"%d" % work.runtime_ms),
                ]
                await exchange.respond(200, answer.body(event, work), timing)


async def _stream(stream: EventStream, work: Work, answer: Answer) -> None:
    async with aclosing(work.events()) as events:
        async for event in events:
            if type(event) is Text:
                if chunk := answer.text(event, work):
                    await stream.send(chunk)
            elif type(event) is Done:
                await stream.end(answer.last(event, work))
