"""The one way in for everything that costs: scope, limits, money, in this order.

A refusal consumes nothing. What `admit` returns must be closed by whoever asked for it.
"""

from __future__ import annotations

from collections.abc import Callable

from inferd.access.caller import INFERENCE_RUN, Caller
from inferd.access.limits import Ticket
from inferd.admission.bounds import most, most_tokens
from inferd.admission.work import Order, Rooms, Terms, Work
from inferd.engines.registry import require_extra
from inferd.errors import Unavailable
from inferd.metering.payer import Payer
from inferd.metering.prices import Price, PriceBook
from inferd.metering.units import bound
from inferd.storage.rows import EntryRow


class Gate:
    """Admits work, or raises Forbidden, TooManyRequests, PaymentRequired or Unavailable."""

    def __init__(self, rooms: Rooms, prices: PriceBook) -> None:
        self._rooms = rooms
        self._prices = prices
        self._observers: list[Callable[[EntryRow], None]] = []
        self._check_rent: Callable[[Price], None] | None = None

    def with_rent(self, check: Callable[[Price], None]) -> None:
        """Call `check` before a model is called whose uptime an account pays: it may refuse."""
        self._check_rent = check

    def observe(self, observer: Callable[[EntryRow], None]) -> None:
        """Call `observer` with each settled entry: the one event behind metrics and logs."""
        self._observers.append(observer)

    async def admit(self, caller: Caller, order: Order) -> Work:
        """Let one order in. Of a payer that is known no database is read."""
        rooms = self._rooms
        caller.require_funds()
        caller.require_scope(INFERENCE_RUN)
        caller.require_model(order.card.name)
        if not rooms.ledger.healthy:
            raise Unavailable(
                "Usage cannot be recorded at the moment, so nothing is served.",
                retry_after_seconds=5,
            )
        require_extra(order.card)
        price = order.price or self._prices.current(order.card.name)
        if price.payer_account_id is not None and self._check_rent is not None:
            self._check_rent(price)
        usage = most(order.request, order.card)
        tokens = most_tokens(usage, order.request, order.card)
        ticket = Ticket(caller.account_id, caller.token_id, order.card.name, tokens)
        await rooms.limits.enter(ticket)
        try:
            nanos = bound(usage, price, order.card, order.request, order.tier)
            now = rooms.clock.unix_ns()
            if not order.paid:
                await rooms.ledger.reserve(_payer(caller), order.request_id, nanos, at_unix_ns=now)
        except BaseException:
            rooms.limits.undo(ticket)
            raise
        return Work(rooms, caller, order, Terms(price, ticket, now), self._settled)

    def _settled(self, entry: EntryRow) -> None:
        for observer in self._observers:
            observer(entry)


def _payer(caller: Caller) -> Payer:
    return Payer(caller.account_id, caller.token_id, caller.jwt_id, caller.jwt_limit_nanos)
