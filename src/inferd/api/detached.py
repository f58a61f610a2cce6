"""An exchange without a client: the endpoint answers, and what it says is kept for a webhook."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from inferd.admission.work import Work
from inferd.api.exchange import Exchange, Message
from inferd.errors import Unavailable
from inferd.jobs.webhook_calls import Answered, Stored

ORIGIN = b":origin"
"""Stored among the headers: how the client saw this gateway."""
HEADERS = (b"content-type", b"x-deepinfra-service-tier", b"x-inferd-tag")
"""Of a call's headers, those that its endpoint reads beside the body."""


class Detached:
    """What takes the client's place. It records the answer like that of a call with a key."""

    def __init__(self, call: Stored) -> None:
        self.paid = call.paid
        self.before: str | None = None
        self.work = call.work
        """Admitted when the call was asked for, until an endpoint takes it."""
        self._status = 0
        self._body = bytearray()

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Status and headers."""
        self._status = status

    def add(self, chunk: bytes) -> None:
        """A piece of the body."""
        self._body += chunk

    async def keep(self, work: Work | None) -> None:
        """It is stored by whoever asked for it, once it is whole."""

    async def close(self) -> None:
        """Whatever was admitted and not begun costs nothing."""
        work, self.work = self.work, None
        if work is not None:
            work.forgiven = True
            await work.close()

    def answered(self, work: Work | None) -> Answered:
        """The answer of an exchange that is over. Unavailable if there is none."""
        if not self._status:
            raise Unavailable("The call ended without an answer.")
        booked = work is not None and work.entry is not None
        return Answered(self._status, bytes(self._body), booked)


async def compute(answer: Callable[[Exchange], Awaitable[None]], call: Stored) -> Answered:
    """Answer a stored call as its endpoint does."""
    asked, detached = call.asked, Detached(call)
    scope: Message = {
        "type": "http",
        "method": "POST",
        "path": asked.path,
        "query_string": asked.query.encode("latin-1"),
        "headers": [pair for pair in asked.headers if pair[0] != ORIGIN],
    }
    body = iter([asked.body])

    async def receive() -> Message:
        for content in body:
            return {"type": "http.request", "body": content, "more_body": False}
        # There is nobody who could leave.
        return await asyncio.get_running_loop().create_future()

    exchange = Exchange(scope, receive, _into_the_void)
    exchange.request_id = call.row.request_id
    exchange.caller = call.caller
    exchange.origin = dict(asked.headers).get(ORIGIN, b"").decode()
    exchange.recorder = exchange.detached = detached
    await answer(exchange)
    return detached.answered(exchange.work)


async def _into_the_void(message: Message) -> None:
    """The recorder has it."""
