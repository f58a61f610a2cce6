"""One connection to a worker, and the requests on it.

Whoever made the worker has one; each gateway that shares it has one of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from inferd.engines.base import Request
from inferd.errors import InferdError
from inferd.serving.inbox import Inbox
from inferd.serving.replica import Flight, ReplicaDied
from inferd.serving.wire import (
    Cancel,
    Credit,
    Events,
    FromWorker,
    Loaded,
    LoadFailed,
    Port,
    Run,
    ToWorker,
)
from inferd.tasks.base import Chunk, Counted, Progress, Stopped
from inferd.tasks.every import ENDINGS, Event
from inferd.tasks.speech_recognition import Segment
from inferd.tasks.text_generation import Done, Started, Text
from inferd.tasks.text_to_image import Preview

CANCEL_SECONDS_MAX = 10.0
"""A worker that has not stopped a request by then hangs."""


class Link:
    """Runs requests on a worker. `lost` once the connection ended, for whatever reason."""

    def __init__(
        self,
        *,
        on_hung: Callable[[], None],
        on_lost: Callable[[], None],
        on_loaded: Callable[[Loaded | LoadFailed], None] | None = None,
    ) -> None:
        """`on_lost` is called before the requests hear of it, so that none comes back here."""
        self.port = Port(FromWorker, self._on_message, self._on_lost)
        self.lost = False
        self._on_hung = on_hung
        self._when_lost = on_lost
        self._on_loaded = on_loaded
        self._inboxes: dict[str, Inbox] = {}

    def send(self, message: ToWorker) -> None:
        """Write one message; dropped if the other end is gone."""
        self.port.send(message)

    async def run(self, request_id: str, request: Request, flight: Flight) -> AsyncGenerator[Event]:
        """Compute; closing the generator cancels and waits for the final usage."""
        # What was counted until here and what is packed now may each take long with a long text.
        await asyncio.sleep(0)
        if self.lost:
            raise ReplicaDied("The worker that served this request ended.")
        self.port.send(Run(request_id, request))
        # Nothing is read between these lines: the worker's first word finds its inbox.
        inbox = self._inboxes[request_id] = Inbox(
            lambda size_bytes: self.port.send(Credit(request_id, size_bytes))
        )
        ended = False
        try:
            while not ended:
                event = await inbox.take()
                ended = _note(event, flight)
                if isinstance(event, InferdError):
                    raise event
                yield event
        finally:
            if not ended:
                await self._cancel(request_id, inbox, flight)
            del self._inboxes[request_id]

    async def _cancel(self, request_id: str, inbox: Inbox, flight: Flight) -> None:
        self.port.send(Cancel(request_id))
        try:
            async with asyncio.timeout(CANCEL_SECONDS_MAX):
                while not _note(await inbox.take(), flight):
                    pass
        except TimeoutError:
            self._on_hung()

    def _on_message(self, message: ToWorker | FromWorker) -> None:
        match message:
            case Events(items):
                for request_id, event in items:
                    if inbox := self._inboxes.get(request_id):
                        inbox.put(event)
            case Loaded() | LoadFailed() if self._on_loaded is not None:
                self._on_loaded(message)
            case _:
                raise AssertionError("the decoder lets nothing else through")

    def _on_lost(self) -> None:
        self.lost = True
        self._when_lost()
        error = ReplicaDied("The worker that served this request ended unexpectedly.")
        for inbox in self._inboxes.values():
            inbox.put(error)


def _note(event: Event | InferdError, flight: Flight) -> bool:
    """Keep the flight true; True if this was the last event."""
    match event:
        case Text() | Chunk() | Segment() | Preview():
            flight.stage, flight.usage = "decode", event.usage
        case Progress():
            flight.usage = event.usage
        case Started() | Counted():
            flight.stage = "prefill"
        case Stopped() | Done():
            flight.usage = event.usage
            if event.usage.output_tokens:
                flight.stage = "decode"
            return True
        case _ if isinstance(event, ENDINGS):
            flight.usage = event.usage
            return True
        case _:
            return True
    return False
