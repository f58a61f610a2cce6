"""Rent: models that are priced by uptime are paid by an account for as long as they are loaded.

Money for the next minute of all replicas is set aside before it begins and booked as an entry when
it is over, when the model is unloaded or when its replicas become more or fewer: so no more is
booked than was set aside. If the account cannot pay, is suspended or gone, nobody may call the
model; it is unloaded when it is idle. Time is counted between two looks, of the replicas that were
up at both, so nobody pays for more than there was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

import msgspec

from inferd import ids
from inferd.clock import Clock
from inferd.errors import InferdError, PaymentRequired, Unavailable
from inferd.metering.cost import cost, cost_bound
from inferd.metering.ledger import Ledger
from inferd.metering.payer import Payer
from inferd.metering.prices import Price, PriceBook
from inferd.serving.routing import Routing
from inferd.storage.checks import UPTIME_TOKEN
from inferd.storage.rows import EntryRow
from inferd.tasks.base import MICRO, Usage

_log = logging.getLogger("inferd.admission")

LOOK_SECONDS = 10
TERM_SECONDS = 60
"""What is paid at once."""


class _Term(msgspec.Struct):
    """A minute of a model's replicas, paid ahead."""

    request_id: str
    price: Price
    created_unix_ns: int
    seen_seconds: float
    replicas: int
    micros_max: int
    """Of uptime that money is set aside for."""
    micros: int = 0
    """Of uptime that was seen, of all replicas together."""

    def is_over(self, price: Price | None, replicas: int) -> bool:
        """True once a minute is full, or anything of it is not as it was."""
        full = self.micros >= TERM_SECONDS * self.replicas * MICRO
        return full or replicas != self.replicas or price != self.price


class Rent:
    """Watches the replicas of this machine. One gateway of a machine does it."""

    def __init__(
        self, router: Routing, ledger: Ledger, prices: PriceBook, tasks: Mapping[str, str],
        clock: Clock,
    ) -> None:  # fmt: skip
        self._router = router
        self._ledger = ledger
        self._prices = prices
        self._tasks = tasks
        """Model → its task."""
        self._clock = clock
        self._terms: dict[str, _Term] = {}
        self._unpaid: dict[str, str] = {}
        """Model → why its account cannot pay."""
        self._refused: dict[str, str] = {}
        """Account → why it may not spend."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from time to time."""
        # Held here, cancelled and awaited in `close`.
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def close(self) -> None:
        """Book what is up until now."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for model in list(self._terms):
            await self._book(model)

    def check(self, price: Price) -> None:
        """Raise PaymentRequired if the account of a model that is paid by uptime cannot pay."""
        reason = self._unpaid.get(price.model)
        if reason is not None:
            raise PaymentRequired(f"The account that keeps {price.model} up cannot pay: {reason}")

    async def look(self) -> None:
        """Count, book what is over, pay ahead."""
        await self._router.refresh()
        models = self._router.snapshot().models
        up = {one.model: one.replicas for one in models if one.replicas}
        known = {*self._terms, *self._unpaid, *self._tasks, *up}
        priced = {model: self._price(model) for model in sorted(known)}
        await self._look_at_payers(priced.values())
        if self._router.index in (None, 0):
            self._count(up)
        for model, price in priced.items():
            try:
                await self._turn(model, price, up.get(model, 0))
            except InferdError as error:
                _log.warning("the uptime of %s was not paid: %s", model, error)

    def _price(self, model: str) -> Price | None:
        try:
            price = self._prices.current(model)
        except InferdError:
            return None
        return price if price.billed_unit == "uptime_seconds" else None

    async def _look_at_payers(self, priced: Iterable[Price | None]) -> None:
        """Who is suspended or gone; while the database is away, who was."""
        asked = {_payer(price) for price in priced if price is not None}
        asked |= {_payer(term.price) for term in self._terms.values()}
        if not asked:
            return
        try:
            self._refused = await self._ledger.refusals(asked)
        except Unavailable as error:
            _log.warning("who keeps models up was not looked at: %s", error)

    def _count(self, up: Mapping[str, int]) -> None:
        """Add the time since the last look: of replicas that were up at both, of who may pay."""
        now = self._clock.seconds()
        for model, term in self._terms.items():
            if _payer(term.price) not in self._refused:
                replicas = min(term.replicas, up.get(model, 0))
                term.micros += round((now - term.seen_seconds) * replicas * MICRO)
                # More was not set aside: a look that came late costs nobody more than he has.
                term.micros = min(term.micros, term.micros_max)
            term.seen_seconds = now

    async def _turn(self, model: str, price: Price | None, replicas: int) -> None:
        """Book a term that is over; begin the next one, or say why nobody may call the model."""
        why = None if price is None else self._refused.get(_payer(price))
        term = self._terms.get(model)
        if term is not None and (why is not None or term.is_over(price, replicas)):
            await self._book(model)
        if price is None:
            self._unpaid.pop(model, None)
        elif why is not None:
            self._unpaid[model] = why
        elif self._router.index not in (None, 0):
            # Another gateway of this machine pays.
            self._unpaid.pop(model, None)
        elif model not in self._terms:
            await self._begin(model, price, replicas)

    async def _begin(self, model: str, price: Price, replicas: int) -> None:
        """Set money aside; who could not pay is asked again though his model is down."""
        if not replicas and model not in self._unpaid:
            return
        request_id, now = ids.request_id(), self._clock.unix_ns()
        ahead = Usage(quantity=max(1, replicas) * (TERM_SECONDS + 2 * LOOK_SECONDS) * MICRO)
        payer = Payer(_payer(price), UPTIME_TOKEN)
        try:
            await self._ledger.reserve(payer, request_id, cost_bound(ahead, price), at_unix_ns=now)
        except PaymentRequired as error:
            self._unpaid[model] = error.message
            return
        self._unpaid.pop(model, None)
        if replicas:
            seen = self._clock.seconds()
            self._terms[model] = _Term(request_id, price, now, seen, replicas, ahead.quantity)
        else:
            self._ledger.release(request_id)

    async def _book(self, model: str) -> None:
        term = self._terms.pop(model)
        if not term.micros:
            self._ledger.release(term.request_id)
            return
        price = term.price
        entry = EntryRow(
            request_id=term.request_id,
            account_id=_payer(price),
            token_id=UPTIME_TOKEN,
            model=model,
            task=self._tasks.get(model, ""),
            dialect="cli",
            streamed=False,
            status="succeeded",
            stage="done",
            error_code=None,
            end_user=None,
            input_tokens=0,
            cached_tokens=0,
            output_tokens=0,
            estimated=False,
            price_id=price.id,
            cost_nanos=cost(Usage(quantity=term.micros), price),
            created_unix_ns=term.created_unix_ns,
            settled_unix_ns=self._clock.unix_ns(),
            queue_ms=0,
            first_event_ms=None,
            runtime_ms=term.micros // 1000,
            unit="uptime_seconds",
            quantity=term.micros,
        )
        await asyncio.shield(self._ledger.settle(entry))

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except InferdError as error:
                _log.warning("the uptime of models was not counted: %s", error)
            except Exception:  # noqa: BLE001 the outermost loop: the next look counts
                _log.exception("the uptime of models was not counted")


def _payer(price: Price) -> str:
    return price.payer_account_id or ""
