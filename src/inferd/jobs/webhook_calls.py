"""Native calls that are answered later, by a webhook: rows, so that no crash loses one.

A call is admitted when it is asked for, money and limits included, and answered `queued`. It is
computed by the very endpoint that would have answered it, from the body as it came. What a dead
process left is admitted and computed again at the next start under the same request id, so it is
billed once; what was booked already is computed again for nothing. What a shutdown interrupts
costs nothing so far and begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from inferd.access.caller import Caller
from inferd.admission.work import Work
from inferd.clock import Clock
from inferd.errors import InferdError, NotFound, Unavailable
from inferd.jobs.blobs import KEPT_SECONDS, Blobs
from inferd.jobs.deliveries import Deliveries
from inferd.jobs.left_behind import FAILED_BEFORE, caller_of, require_payer
from inferd.storage import entries
from inferd.storage import webhook_calls as stored
from inferd.storage.database import Database
from inferd.storage.rollups import View
from inferd.storage.webhook_calls import CallRow

BUSY = frozenset({429, 503})
"""Statuses of a model that has no room now, or is not ready."""
AGAIN_SECONDS = (2.0, 5.0, 15.0, 30.0, 60.0, 120.0)
"""Before a call is tried once more that found its model so."""
KEEP_SECONDS = 2.0
"""Between two tries to keep an answer."""

_log = logging.getLogger("inferd.jobs")
_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """What a caller sent."""

    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    """Those that say something about the body."""
    body: bytes | bytearray
    webhook: str


class Answered(NamedTuple):
    """What the endpoint answered: a status and JSON."""

    status: int
    body: bytes
    booked: bool = False
    """The ledger has an entry of it."""


class Stored(NamedTuple):
    """A call to compute."""

    row: CallRow
    caller: Caller
    asked: Asked
    work: Work | None
    """It is admitted already."""
    paid: bool
    """It was booked before a crash that lost its answer."""


Compute = Callable[[Stored], Awaitable[Answered]]
"""Answer a call. Raises InferdError for a caller who may not call any more."""


class WebhookCalls:
    """Owns the calls that this process computes. `start` once; `close` at the end."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        deliveries: Deliveries,
        clock: Clock,
        gateway: str = "",
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._deliveries = deliveries
        self._clock = clock
        self._gateway = gateway
        self._compute: Compute | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, compute: Compute) -> int:
        """Compute what a dead process left; returns how many."""
        self._compute = compute
        async with self._database.reading() as connection:
            left = await stored.unfinished(connection, self._gateway)
            booked = await entries.booked(connection, [row.request_id for row in left])
        for row in left:
            if booked.get(row.request_id, "succeeded") == "succeeded":
                self._own(self._run(row, None, paid=row.request_id in booked))
            else:
                self._own(self._end(row, _failure(InferdError(FAILED_BEFORE))))
        return len(left)

    async def submit(self, caller: Caller, asked: Asked, work: Work) -> None:
        """Store an admitted call and begin. The work is this object's from now on."""
        try:
            row = await self._store(caller, asked, work.order.request_id)
        except BaseException:
            await work.close()
            raise
        self._own(self._run(row, work, paid=False))

    async def get(self, view: View, request_id: str) -> CallRow:
        """A call that somebody may see. Raises NotFound."""
        async with self._database.reading() as connection:
            row = await stored.get(connection, request_id, view)
        if row is None:
            raise NotFound("There is no such call with a webhook, or it was deleted after a day.")
        return row

    async def listed(self, view: View, limit: int) -> Sequence[CallRow]:
        """The newest of those that somebody may see."""
        async with self._database.reading() as connection:
            return await stored.listed(connection, view, limit)

    async def answer(self, row: CallRow) -> bytes | None:
        """What is delivered; None while it is not there. NotFound once it was deleted."""
        return None if row.answer is None else await self._blobs.get(row.answer)

    async def close(self) -> None:
        """Interrupt what runs; it begins anew at the next start."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _store(self, caller: Caller, asked: Asked, request_id: str) -> CallRow:
        now = self._clock.unix_ns()
        row = CallRow(
            request_id=request_id,
            account_id=caller.account_id,
            token_id=caller.token_id,
            jwt_id=caller.jwt_id,
            jwt_limit_nanos=caller.jwt_limit_nanos,
            path=asked.path,
            query=asked.query,
            headers=msgspec.msgpack.encode(asked.headers),
            body=await self._blobs.put(asked.body),
            answer=None,
            webhook=asked.webhook,
            status="queued",
            created_unix_ns=now,
            ended_unix_ns=None,
            gateway=self._gateway,
            delivery="waiting",
            due_unix_ns=None,
            attempts=msgspec.msgpack.encode([]),
        )
        async with self._database.writing() as connection:
            await stored.add(connection, row)
            await stored.forget(connection, now - KEPT_SECONDS * 1_000_000_000)
        return row

    def _own(self, work: Coroutine[None, None, None]) -> None:
        # Held by this object, cancelled and awaited in `close`.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, row: CallRow, work: Work | None, *, paid: bool) -> None:
        try:
            with suppress(Unavailable):
                # For those who look; the call goes on without.
                await self._save(msgspec.structs.replace(row, status="running"))
            await self._end(row, await self._answered_or_failed(row, work, paid=paid))
        finally:
            if work is not None:
                # Settled long since, unless we were interrupted before it began.
                work.forgiven = True
                await work.close()

    async def _answered_or_failed(self, row: CallRow, work: Work | None, *, paid: bool) -> Answered:
        try:
            if work is None and not paid:
                await require_payer(self._database, row, self._clock)
            call = Stored(row, caller_of(row), await self._asked(row), work, paid)
            return await self._answered(call)
        except InferdError as error:
            return _failure(error)
        except Exception:  # noqa: BLE001 the outermost loop of a call
            _log.exception("the call %s failed", row.request_id)
            return _failure(InferdError("Something broke inside inferd."))

    async def _answered(self, call: Stored) -> Answered:
        """Compute; a model that is busy is tried again."""
        assert self._compute is not None, "started"
        answered = await self._compute(call)
        for pause in AGAIN_SECONDS:
            if answered.booked or answered.status not in BUSY:
                # Under an id that is booked nothing more could be.
                break
            await asyncio.sleep(pause)
            answered = await self._compute(call._replace(work=None))
        return answered

    async def _asked(self, row: CallRow) -> Asked:
        headers = msgspec.msgpack.decode(row.headers, type=list[tuple[bytes, bytes]])
        body = await self._blobs.get(row.body)
        return Asked(row.path, row.query, headers, body, row.webhook)

    async def _end(self, row: CallRow, answered: Answered) -> None:
        """Keep the answer, as soon as the database and the disk take it; it is due at once."""
        content = await asyncio.to_thread(delivered, row.request_id, answered)
        while True:
            try:
                await self._keep(row, answered, content)
            except (Unavailable, OSError) as error:
                # Should the process end before, the call is found unfinished at the next start.
                _log.warning("the answer of %s could not be kept: %s", row.request_id, error)
                await asyncio.sleep(KEEP_SECONDS)
            else:
                break
        self._deliveries.look()

    async def _keep(self, row: CallRow, answered: Answered, content: bytes) -> None:
        now = self._clock.unix_ns()
        await self._save(
            msgspec.structs.replace(
                row,
                status="succeeded" if answered.status == 200 else "failed",
                answer=await self._blobs.put(content),
                ended_unix_ns=now,
                delivery="pending",
                due_unix_ns=now,
            )
        )

    async def _save(self, row: CallRow) -> None:
        async with self._database.writing() as connection:
            await stored.save(connection, row)


def _failure(error: InferdError) -> Answered:
    return Answered(error.status, _encode({"detail": {"error": error.message}}))


def delivered(request_id: str, answered: Answered) -> bytes:
    """The body of a delivery (deepinfra-api 13).

    A success is the normal answer, with the task's own fields under `results` as well where the
    task has no `results`: readers of both kinds exist. A failure says why in `detail`.
    """
    told: dict[str, msgspec.Raw] = msgspec.json.decode(answered.body, type=dict[str, msgspec.Raw])
    if answered.status == 200:
        envelope = ("request_id", "inference_status", "results")
        if "results" not in told:
            own = {name: value for name, value in told.items() if name not in envelope}
            told["results"] = msgspec.Raw(_encode(own))
        return _encode(told)
    status = {"status": "failed", "runtime_ms": 0, "cost": 0.0}
    named = {"tokens_generated": None, "tokens_input": None}
    return _encode({"request_id": request_id, "inference_status": {**status, **named}, **told})
