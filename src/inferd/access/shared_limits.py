"""The limits of many gateways: counted together on Valkey, and safe while it is away.

Each gateway also keeps its own counts. While Valkey is away it lets in what is its share: in the
first minute as much as it had used itself when it lost sight of the others, and never more than
limit ÷ gateways; then limit ÷ gateways. So the sum stays within every limit per minute, whatever
the others used. Back again, each says what it holds, and counts are shared once all have.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from inferd.access.limit_rules import Applied, Key
from inferd.access.limits import CONCURRENT_DEFAULT, Limits, Ticket, check_size, refused
from inferd.access.server_clock import ServerClock
from inferd.access.window import TICK_NS, WINDOW_NS, Bounds, Measure, Refusal
from inferd.clock import Clock
from inferd.errors import TooManyRequests, Unavailable
from inferd.storage.shared_counts import Asked, SharedCounts
from inferd.storage.valkey import Valkey

BEAT_SECONDS = 0.5
TOGETHER_SECONDS_MAX = 3.0
"""How long a gateway that starts waits for the others."""
_AWAY: list[Any] = ["away"]
_STRANGE: list[Any] = ["strange"]
_MEASURES: tuple[Measure, ...] = (
    "concurrent requests",
    "requests per minute",
    "tokens per minute",
)


class SharedLimits(Limits):
    """Limits across gateways. `open` it inside an event loop; `close` it at the end."""

    alone = False

    def __init__(
        self,
        clock: Clock,
        valkey: Valkey,
        prefix: str,
        *,
        concurrent_requests: int = CONCURRENT_DEFAULT,
        gateways: int = 1,
    ) -> None:
        """`gateways`: at least so many share the limits, even if nobody was heard of yet."""
        super().__init__(clock, concurrent_requests)
        self.gateway = secrets.token_hex(4)
        self._valkey = valkey
        self._counts = SharedCounts(valkey, prefix, self.gateway)
        self._gateways = gateways
        self._others: list[str] = []
        """All gateways that were heard of last, this one included."""
        self._linked = False
        self._shared = False
        self._unreported = False
        self._together = asyncio.Event()
        self._owned: dict[Key, tuple[int, int]] = {}
        """Requests and tokens of the last minute when the others were lost sight of."""
        self._server = ServerClock(clock.unix_ns() - self._own_ns())
        self.now_ns: Callable[[], int] = lambda: self._server.earliest(self._own_ns())
        # Nothing is known of the last minute: nothing of it is ours.
        self._apart_ns = self.now_ns()
        self._beating: asyncio.Task[None] | None = None
        valkey.watch(self._join, self._lost)

    @property
    def shared(self) -> bool:
        """True while all gateways count together."""
        return self._shared

    async def open(self) -> None:
        """Begin to tell the others that this gateway lives; wait until counts are shared."""
        # Held by this object, cancelled and awaited in `close`.
        self._beating = asyncio.get_running_loop().create_task(self._beat_on())
        if self._linked:
            with suppress(TimeoutError):
                async with asyncio.timeout(TOGETHER_SECONDS_MAX):
                    await self._together.wait()

    async def close(self) -> None:
        """Say goodbye: what is in flight here is given back at once."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self._linked:
            with suppress(Unavailable):
                await self._counts.leave()

    async def enter(self, ticket: Ticket) -> None:
        """Count the request, or raise TooManyRequests or BadRequest and count nothing."""
        applied = self.applied(ticket.account_id, ticket.token_id, ticket.model)
        for each in applied:
            check_size(each, ticket.tokens)
        try:
            await self._enter(ticket, applied)
        except asyncio.CancelledError:
            Limits.undo(self, ticket)
            raise

    async def _enter(self, ticket: Ticket, applied: tuple[Applied, ...]) -> None:
        answer = _STRANGE
        while self._shared and self._linked and answer is _STRANGE:
            answer = await self._ask(ticket, applied, "")
        if answer[0] == "yes":
            ticket.tick = answer[1]
            self.count(ticket, applied, ticket.tick * TICK_NS)
        elif answer[0] == "no":
            raise _no(answer, applied)
        else:
            await self._enter_apart(ticket, applied)

    async def _enter_apart(self, ticket: Ticket, applied: tuple[Applied, ...]) -> None:
        """Decide alone; the others hear of it if they can, and say no if they count together."""
        self._count_share(ticket, applied)
        answer = await self._ask(ticket, applied, "1") if self._linked else _AWAY
        if answer[0] == "yes":
            ticket.tick = answer[1]
        elif answer[0] == "no":
            Limits.undo(self, ticket)
            raise _no(answer, applied)
        elif answer is _AWAY:
            self._unreported = True

    def _count_share(self, ticket: Ticket, applied: tuple[Applied, ...]) -> None:
        """Count the request within this gateway's share, or raise TooManyRequests."""
        now_ns = self.now_ns()
        capped = tuple(Applied(each.key, self._share(each, now_ns)) for each in applied)
        worst = self.worst(ticket, capped, now_ns)
        if worst is not None:
            (index, refusal) = worst
            limit = applied[index].bounds[_MEASURES.index(refusal.measure)]
            raise refused(applied[index].key, refusal._replace(limit=limit or 0))
        # Forgotten by the earliest time that it can be, stamped with the latest: none ends early.
        ticket.tick = self._server.latest(self._own_ns()) // TICK_NS
        self.count(ticket, applied, ticket.tick * TICK_NS)

    async def _ask(self, ticket: Ticket, applied: tuple[Applied, ...], said: str) -> list[Any]:
        asked = [Asked(name_of(each.key), each.bounds) for each in applied]
        sent_ns = self._own_ns()
        answering = self._counts.enter(asked, ticket.tokens, said)
        try:
            answer = await asyncio.shield(answering)
        except Unavailable:
            return _AWAY
        except asyncio.CancelledError:
            answering.add_done_callback(partial(self._take_back, ticket.tokens, applied))
            raise
        self._hear(sent_ns, answer)
        return _STRANGE if answer[0] == "strange" else answer

    def _take_back(
        self, tokens: int, applied: tuple[Applied, ...], answering: asyncio.Future[list[Any]]
    ) -> None:
        """Nobody waits for this answer any more."""
        if answering.cancelled() or answering.exception() is not None:
            return
        answer = answering.result()
        if answer[0] == "yes":
            self._tell([name_of(each.key) for each in applied], answer[1], (-1, -1, -tokens))

    def correct(self, ticket: Ticket, tokens: int) -> None:
        """From now on the request counts as so many tokens."""
        change = tokens - ticket.tokens
        logged = any(held.entry is not None for held in ticket.held or ())
        super().correct(ticket, tokens)
        if change and logged:
            self._tell(self._names(ticket), ticket.tick, (0, 0, change))

    def leave(self, ticket: Ticket) -> None:
        """The request is over."""
        if ticket.held is not None:
            self._tell(self._names(ticket), ticket.tick, (-1, 0, 0))
        super().leave(ticket)

    def undo(self, ticket: Ticket) -> None:
        """The request never happened."""
        if ticket.held is not None:
            self._tell(self._names(ticket), ticket.tick, (-1, -1, -ticket.tokens))
            for _, counter, entry in ticket.held:
                if entry is not None:
                    counter.add(entry, -1, -ticket.tokens)
        super().leave(ticket)

    def _names(self, ticket: Ticket) -> list[str]:
        return [name_of(held.key) for held in ticket.held or ()]

    def _tell(self, names: list[str], tick: int, change: tuple[int, int, int]) -> None:
        """Nobody waits for it; if it is lost, what this gateway holds is said anew."""
        if self._linked and names:
            self._counts.change(names, tick, change).add_done_callback(_seen)

    def _share(self, each: Applied, now_ns: int) -> Bounds:
        """What this gateway may reach alone."""
        count = max(self._gateways, len(self._others), 1)
        if count == 1:
            return each.bounds
        place = self._others.index(self.gateway) if self.gateway in self._others else count - 1
        concurrent, requests, tokens = (
            None if bound is None else bound // count + (place < bound % count)
            for bound in each.bounds
        )
        if now_ns < self._apart_ns + WINDOW_NS + BEAT_SECONDS * 2e9:
            owned_requests, owned_tokens = self._owned.get(each.key, (0, 0))
            requests = None if requests is None else min(requests, owned_requests)
            tokens = None if tokens is None else min(tokens, owned_tokens)
        return Bounds(concurrent, requests, tokens)

    def _lost(self) -> None:
        self._linked = False
        self._part()

    def _part(self) -> None:
        """Lose sight of the others: remember what was ours."""
        if not self._shared:
            return
        self._shared = False
        self._apart_ns = now_ns = self.now_ns()
        for counter in self.counters.values():
            counter.forget(now_ns)
        self._owned = {key: (c.requests, c.tokens) for key, c in self.counters.items()}

    def _join(self) -> None:
        """Say what this gateway holds; later calls on the connection come after it."""
        counts, now_ns = self._counts, self.now_ns()
        counts.session = secrets.token_hex(4)
        joining = counts.join(self._others, unreported=self._unreported)
        joining.add_done_callback(partial(self._joined, self._own_ns()))
        for key, counter in self.counters.items():
            counter.forget(now_ns)
            entries = [
                ((entry.until_ns - WINDOW_NS) // TICK_NS - 1, entry.requests, entry.tokens)
                for entry in counter.entries
            ]
            if entries or counter.in_flight:
                counts.seed(name_of(key), counter.in_flight, entries).add_done_callback(_seen)
        self._linked = True
        self._unreported = False

    def _joined(self, sent_ns: int, joining: asyncio.Future[list[Any]]) -> None:
        if not joining.cancelled() and joining.exception() is None:
            self._set_clock(sent_ns, joining.result()[1])
            self._beat()

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self._linked:
                self._beat()

    def _beat(self) -> None:
        self._counts.beat().add_done_callback(partial(self._beaten, self._own_ns()))

    def _beaten(self, sent_ns: int, beating: asyncio.Future[list[Any]]) -> None:
        if beating.cancelled() or beating.exception() is not None:
            return
        answer = beating.result()
        if answer[0] == "yes":
            self._others = sorted(answer[3:])
        self._hear(sent_ns, answer)

    def _hear(self, sent_ns: int, answer: list[Any]) -> None:
        """Follow what an answer says of all gateways."""
        if answer[0] == "strange":
            if self._linked:
                self._join()
            return
        self._set_clock(sent_ns, answer[1])
        if answer[0] == "apart" or not answer[2]:
            self._part()
        elif not self._shared:
            self._shared = True
            self._owned = {}
            self._together.set()

    def _set_clock(self, sent_ns: int, tick: int) -> None:
        self._server.read(sent_ns, self._own_ns(), tick * TICK_NS, (tick + 1) * TICK_NS)

    def _own_ns(self) -> int:
        return int(self._clock.seconds() * 1e9)


def _no(answer: list[Any], applied: tuple[Applied, ...]) -> TooManyRequests:
    index, measure, wait_us = int(answer[3]), int(answer[4]), int(answer[5])
    each = applied[index]
    wait_ns = None if wait_us < 0 else wait_us * 1000
    limit = each.bounds[measure] or 0
    return refused(each.key, Refusal(_MEASURES[measure], limit, wait_ns))


def name_of(key: Key) -> str:
    """A counter's name on the server."""
    return "|".join("" if part is None else part for part in key)


def _seen(done: asyncio.Future[list[Any]]) -> None:
    if not done.cancelled():
        done.exception()
