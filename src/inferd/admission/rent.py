"""Rent: models that are priced by uptime are paid by an account for as long as they are loaded.

Money for the next minute is set aside before it begins and booked as an entry when it is over, or
when the model is unloaded. If the account cannot pay, nobody may call the model until it can; it
is unloaded when it is idle. Time is counted between two looks at which the model was up, so nobody
pays for more than there was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from inferd import ids
from inferd.clock import Clock
from inferd.errors import InferdError, PaymentRequired
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
    """A minute of a model, paid ahead."""

    request_id: str
    price: Price
    created_unix_ns: int
    seen_seconds: float
    micros: int = 0
    """Of uptime that was seen."""


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
        if self._router.index not in (None, 0):
            return
        models = self._router.snapshot().models
        up = {one.model: one.replicas for one in models if one.replicas}
        for model in {*self._terms, *self._unpaid, *up}:
            price = self._price(model)
            if model in self._terms and self._is_over(model, up.get(model, 0), price):
                await self._book(model)
            if model not in self._terms and price is not None:
                await self._begin(model, price, is_up=model in up)

    def _price(self, model: str) -> Price | None:
        try:
            price = self._prices.current(model)
        except InferdError:
            return None
        return price if price.billed_unit == "uptime_seconds" else None

    def _is_over(self, model: str, replicas: int, price: Price | None) -> bool:
        term, now = self._terms[model], self._clock.seconds()
        if replicas:
            term.micros += round((now - term.seen_seconds) * replicas * MICRO)
            term.seen_seconds = now
        return not replicas or term.micros >= TERM_SECONDS * MICRO or price != term.price

    async def _begin(self, model: str, price: Price, *, is_up: bool) -> None:
        """Set money aside; who could not pay is asked again though his model is down."""
        if not is_up and model not in self._unpaid:
            return
        request_id, now = ids.request_id(), self._clock.unix_ns()
        ahead = Usage(quantity=(TERM_SECONDS + 2 * LOOK_SECONDS) * MICRO)
        payer = Payer(price.payer_account_id or "", UPTIME_TOKEN)
        try:
            await self._ledger.reserve(payer, request_id, cost_bound(ahead, price), at_unix_ns=now)
        except PaymentRequired as error:
            self._unpaid[model] = error.message
            return
        self._unpaid.pop(model, None)
        if is_up:
            self._terms[model] = _Term(request_id, price, now, self._clock.seconds())
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
            account_id=price.payer_account_id or "",
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
