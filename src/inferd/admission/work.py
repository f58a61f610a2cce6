"""One billable unit of work, from the gate to its one settlement.

Whoever runs work iterates `events` and closes it in a `finally`. The entry is committed before
the task's ending comes out of `events`; every other end is settled by `close`. Both are idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Literal

import msgspec

from inferd.access.caller import Caller
from inferd.access.limits import Limits, Ticket
from inferd.admission.bounds import work_of
from inferd.catalog.card import ModelCard
from inferd.clock import Clock
from inferd.engines.base import Request
from inferd.errors import InferdError
from inferd.metering.cost import cost
from inferd.metering.ledger import Ledger
from inferd.metering.prices import Price
from inferd.metering.units import billed, bound
from inferd.money import NanoUsd
from inferd.serving.replica import Flight
from inferd.serving.router import Ask
from inferd.serving.routing import Routing
from inferd.storage.rows import EntryRow, EntryStatus
from inferd.tasks.base import NOTHING, Counted, Progress, Tier, Usage
from inferd.tasks.every import ENDINGS, Event
from inferd.tasks.text_generation import (
    DetokenizeRequest,
    Started,
    Text,
    TextGenerationRequest,
    TokenizeRequest,
)

_COUNTS = (Started, Counted)

Dialect = Literal["openai", "native", "anthropic", "elevenlabs", "cli"]


class Order(msgspec.Struct, frozen=True):
    """What somebody wants computed."""

    request_id: str
    card: ModelCard
    request: Request
    """Tokens are counted for nothing: such an order leaves no entry."""
    dialect: Dialect
    streamed: bool
    end_user: str | None = None
    """The caller's own name for who asked; stored with the entry for charging back."""
    tag: str | None = None
    """The caller's own word for what the request belongs to; stored and summed."""
    tier: Tier = "default"
    fail_fast: bool = False
    """Be turned away with 429 rather than stand in line."""
    paid: bool = False
    """Booked before a crash that lost its answer: it is computed again for nothing."""
    price: Price | None = None
    """What it was admitted at before a restart; None: what applies now."""


class Rooms(msgspec.Struct, frozen=True):
    """What admission stands on."""

    router: Routing
    ledger: Ledger
    limits: Limits
    clock: Clock


class Terms(msgspec.Struct, frozen=True):
    """What work was admitted at."""

    price: Price
    ticket: Ticket
    """What it holds of the caller's limits."""
    created_unix_ns: int
    """The moment that decides which month pays."""


class Work:
    """Admitted work: a slot of the caller's concurrency and, with a budget, reserved money."""

    def __init__(
        self,
        rooms: Rooms,
        caller: Caller,
        order: Order,
        terms: Terms,
        on_settled: Callable[[EntryRow], None],
    ) -> None:
        self.order = order
        self.flight = Flight()
        self.error: InferdError | None = None
        """Why the work failed, if it did."""
        self.entry: EntryRow | None = None
        """The settled entry, once there is one."""
        self.forgiven = False
        """We interrupted it ourselves and begin anew: it leaves no entry."""
        self._rooms = rooms
        self._caller = caller
        self._price = terms.price
        self._ticket = terms.ticket
        self._on_settled = on_settled
        self._created_unix_ns = terms.created_unix_ns
        self._created_seconds = rooms.clock.seconds()
        self._first_event_seconds: float | None = None
        self._settling: asyncio.Future[bool] | None = None
        self._billed: Usage | None = None
        """What was settled."""

    async def events(self) -> AsyncGenerator[Event]:
        """Queue, run, meter. The task's ending comes after its entry is committed."""
        order = self.order
        ask = Ask(
            request_id=order.request_id,
            account_id=self._caller.account_id,
            card=order.card,
            request=order.request,
            work=work_of(order.request),
            slots=order.request.n if isinstance(order.request, TextGenerationRequest) else 1,
            tier=order.tier,
            fail_fast=order.fail_fast,
        )
        try:
            async with aclosing(self._rooms.router.run(ask, self.flight)) as events:
                async for event in events:
                    if type(event) is not Text and isinstance(event, _COUNTS):
                        self._shrink(event)
                    elif self._first_event_seconds is None and type(event) is not Progress:
                        self._first_event_seconds = self._rooms.clock.seconds()
                    if type(event) is not Text and isinstance(event, ENDINGS):
                        self.flight.usage = event.usage
                        await self._settle("succeeded")
                    yield event
        except InferdError as error:
            self.error = error
            raise

    async def close(self) -> None:
        """Settle what has not settled: failed if an error was seen, cancelled otherwise."""
        if self._settling is None:
            await self._settle("failed" if self.error is not None else "cancelled")
        else:
            await asyncio.shield(self._settling)

    @property
    def settled(self) -> bool:
        """True once the settlement is over, well or not."""
        return self._settling is not None and self._settling.done()

    @property
    def cost_nanos(self) -> NanoUsd:
        """Cost of the usage so far; once it is settled, what was booked."""
        usage = self._billed if self._billed is not None else self._billable()
        return cost(usage, self._price, self.order.tier)

    @property
    def price_id(self) -> int:
        """The version of the price that it was admitted at."""
        return self._price.id

    @property
    def paid_tier(self) -> Tier:
        """The tier that is paid."""
        return self._price.paid_tier(self.order.tier)

    def _billable(self) -> Usage:
        """The usage so far, in the unit of the price."""
        order = self.order
        seconds = 0 if self.error is not None else self.runtime_ms / 1000
        return billed(self.flight.usage, self._price, order.card, order.request, seconds)

    @property
    def queue_ms(self) -> int:
        """Milliseconds until a slot was granted, loading included; so far, if none was."""
        granted = self.flight.granted_seconds
        until = self._rooms.clock.seconds() if granted is None else granted
        return round((until - self._created_seconds) * 1000)

    @property
    def runtime_ms(self) -> int:
        """Milliseconds since a slot was granted; 0 while there is none."""
        granted = self.flight.granted_seconds
        return 0 if granted is None else round((self._rooms.clock.seconds() - granted) * 1000)

    def _shrink(self, event: Started | Counted) -> None:
        """The input is counted now: keep no more aside than the request can still use and cost."""
        if isinstance(event, Counted):
            most = event.most
        else:
            request = self.order.request
            assert isinstance(request, TextGenerationRequest), "only generation is Started"
            most = Usage(event.prompt_tokens, output_tokens=request.n * event.max_tokens)
        tokens = min(self._ticket.tokens, most.input_tokens + most.output_tokens)
        self._rooms.limits.correct(self._ticket, tokens)
        order = self.order
        nanos = bound(most, self._price, order.card, order.request, order.tier)
        self._rooms.ledger.shrink(self.order.request_id, nanos)

    async def _settle(self, status: EntryStatus) -> None:
        """Settle once. The commit survives the cancellation of whoever waits for it."""
        rooms, order = self._rooms, self.order
        unseen = status == "failed" and self.flight.replica_id is None
        free = isinstance(order.request, TokenizeRequest | DetokenizeRequest)
        refused = self.error is not None and self.error.status < 500
        self._leave_limits(happened=not (unseen or refused) or self.flight.usage != NOTHING)
        if order.paid or self.forgiven or ((unseen or free) and self.flight.usage == NOTHING):
            # Refused before any replica saw it, or free: nothing happened that could be billed.
            rooms.ledger.release(order.request_id)
            self._settling = asyncio.get_running_loop().create_future()
            self._settling.set_result(False)
            return
        entry = self._make_entry(status)
        self._settling = rooms.ledger.settle(entry)
        self._settling.add_done_callback(lambda done: self._committed(entry, done))
        await asyncio.shield(self._settling)

    def _leave_limits(self, *, happened: bool) -> None:
        limits, usage = self._rooms.limits, self.flight.usage
        if not happened:
            limits.undo(self._ticket)
            return
        limits.correct(self._ticket, usage.input_tokens + usage.output_tokens)
        limits.leave(self._ticket)

    def _committed(self, entry: EntryRow, done: asyncio.Future[bool]) -> None:
        if not done.cancelled() and done.exception() is None:
            self.entry = entry
            if done.result():
                self._on_settled(entry)

    def _make_entry(self, status: EntryStatus) -> EntryRow:
        order, caller = self.order, self._caller
        usage = self._billed = self._billable()
        first = self._first_event_seconds
        return EntryRow(
            request_id=order.request_id,
            account_id=caller.account_id,
            token_id=caller.token_id,
            model=order.card.name,
            task=order.card.task,
            dialect=order.dialect,
            streamed=order.streamed,
            status=status,
            stage="done" if status == "succeeded" else self.flight.stage,
            error_code=self.error.code if self.error else None,
            end_user=order.end_user,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            estimated=usage.estimated,
            price_id=self._price.id,
            cost_nanos=self.cost_nanos,
            created_unix_ns=self._created_unix_ns,
            settled_unix_ns=self._rooms.clock.unix_ns(),
            queue_ms=self.queue_ms,
            first_event_ms=None if first is None else round((first - self._created_seconds) * 1000),
            runtime_ms=self.runtime_ms,
            tier=self.paid_tier,
            unit=self._price.billed_unit or order.card.unit(),
            quantity=usage.quantity,
            tag=order.tag,
            jwt_id=caller.jwt_id,
        )
