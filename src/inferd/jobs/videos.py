"""Films that are made after their request was answered: rows, so that no crash loses one.

A job is admitted when it is asked for, money and limits included, and runs like any other work.
What a dead process left is admitted and run again at the next start, under the same request id,
so it is billed once; what was booked already runs again for nothing. A job that a shutdown
interrupts costs nothing so far and begins anew at the next start, under a new id. Either way it
is billed as it was admitted first, and only to who may still be billed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from hashlib import blake2b

import msgspec

from inferd import ids
from inferd.access.caller import Caller
from inferd.admission.gate import Gate
from inferd.admission.work import Order, Work
from inferd.catalog.card import ModelCard
from inferd.clock import Clock
from inferd.errors import (
    InferdError,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from inferd.jobs.blobs import KEPT_SECONDS, Blobs
from inferd.jobs.left_behind import FAILED_BEFORE, caller_of, require_payer
from inferd.metering.prices import Price, price_of
from inferd.storage import entries, jobs, prices
from inferd.storage.database import Database
from inferd.storage.rows import EntryStatus, JobRow
from inferd.tasks.base import NOTHING, Chunk, Tier
from inferd.tasks.text_to_video import Filmed, VideoRequest

AGAIN_SECONDS = (1.0, 5.0, 15.0, 60.0, 60.0, 60.0, 60.0, 60.0)
"""How long a film that was left waits for room at most, before each time that it asks again."""

_log = logging.getLogger("inferd.jobs")


class VideoJobs:
    """Owns the running jobs of this process."""

    def __init__(
        self, database: Database, gate: Gate, blobs: Blobs, clock: Clock, gateway: str = ""
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._gate = gate
        self._blobs = blobs
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def submit(self, caller: Caller, order: Order) -> JobRow:
        """Admit and begin. Raises whatever the gate says."""
        assert isinstance(order.request, VideoRequest), "films are what this room makes"
        request = await self._durable(order.request)
        order = msgspec.structs.replace(order, request=request)
        work = await self._gate.admit(caller, order)
        row = self._row(caller, order, work.price_id)
        try:
            async with self._database.writing() as connection:
                await jobs.add(connection, row)
                kept_ns = KEPT_SECONDS * 1_000_000_000
                await jobs.forget(connection, self._clock.unix_ns() - kept_ns)
        except BaseException:
            await work.close()
            raise
        self._own(self._run(row, work))
        return row

    async def get(self, caller: Caller, job_id: str) -> JobRow:
        """One of the caller's account. Raises NotFound."""
        async with self._database.reading() as connection:
            row = await jobs.get(connection, job_id, caller.account_id)
        if row is None:
            raise NotFound("There is no such video, or it was deleted after a day.")
        return row

    async def begun_by(self, caller: Caller, request_id: str) -> JobRow | None:
        """The film that a request of the caller's account began; None if it came to none."""
        async with self._database.reading() as connection:
            return await jobs.get(connection, _job_id(request_id), caller.account_id)

    async def resume(self, find: Callable[[str], ModelCard]) -> int:
        """Run what a dead process left; returns how many. Call it once, at the start."""
        async with self._database.reading() as connection:
            left = await jobs.unfinished(connection, self._gateway)
            booked = await entries.booked(connection, [row.request_id for row in left])
            asked = [row.price_id for row in left if row.price_id is not None]
            versions = {row.id: price_of(row) for row in await prices.by_ids(connection, asked)}
        for found in left:
            ended = booked.get(found.request_id)
            try:
                row = await self._fit(found, ended)
                order = _order(row, find(row.model), versions, paid=ended == "succeeded")
            except InferdError as error:
                await self._save(found, status="failed", error=error.message)
            else:
                self._own(self._resume(row, order))
        return len(left)

    async def _fit(self, row: JobRow, ended: EntryStatus | None) -> JobRow:
        """The row to run again. Raises InferdError if its failure is booked."""
        if ended == "failed":
            raise InferdError(FAILED_BEFORE)
        if ended == "cancelled":
            # The process died between the interruption's entry and its new id.
            return await self._save(row, status="queued", request_id=ids.request_id())
        return row

    async def _resume(self, row: JobRow, order: Order) -> None:
        try:
            work = await self._admitted(row, order)
        except InferdError as error:
            with suppress(InferdError):
                # If it cannot be told now it is found again at the next start.
                await self._save(row, status="failed", error=error.message)
        else:
            await self._run(row, work)

    async def _admitted(self, row: JobRow, order: Order) -> Work:
        """Let it in; where there is no room now, it waits as it would have waited."""
        for pause in AGAIN_SECONDS:
            try:
                if not order.paid:
                    await require_payer(self._database, row, self._clock)
                return await self._gate.admit(caller_of(row), order)
            except (TooManyRequests, Unavailable) as error:
                await asyncio.sleep(min(pause, error.retry_after_seconds or pause))
        return await self._gate.admit(caller_of(row), order)

    async def close(self) -> None:
        """Interrupt what runs; it is begun again at the next start."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _durable(self, request: VideoRequest) -> VideoRequest:
        """With its first frame where it stays: the caller's file goes when the call is answered."""
        image = request.image
        if image is None or image.path is None:
            return request
        name = await self._blobs.put(await asyncio.to_thread(image.read))
        kept = msgspec.structs.replace(image, path=str(self._blobs.path(name)))
        return msgspec.structs.replace(request, image=kept)

    def _row(self, caller: Caller, order: Order, price_id: int) -> JobRow:
        return JobRow(
            id=_job_id(order.request_id),
            account_id=caller.account_id,
            token_id=caller.token_id,
            request_id=order.request_id,
            model=order.card.name,
            request=msgspec.msgpack.encode(order.request),
            status="queued",
            result=None,
            error=None,
            created_unix_ns=self._clock.unix_ns(),
            ended_unix_ns=None,
            end_user=order.end_user,
            tag=order.tag,
            gateway=self._gateway,
            jwt_id=caller.jwt_id,
            tier=order.tier,
            jwt_limit_nanos=caller.jwt_limit_nanos,
            price_id=price_id,
        )

    def _own(self, work: Coroutine[None, None, None]) -> None:
        # Held by this object, cancelled and awaited in `close`.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, row: JobRow, work: Work) -> None:
        try:
            row = await self._save(row, status="running")
            film = await _film(work)
            await self._save(row, status="succeeded", result=await self._blobs.put(film))
        except asyncio.CancelledError:
            # The caller did not ask for this end. The next start is other work, which is billed.
            work.flight.usage = NOTHING
            await self._save(row, status="queued", request_id=ids.request_id())
            raise
        except InferdError as error:
            await self._save(row, status="failed", error=error.message)
        except Exception:  # noqa: BLE001 the outermost loop of a job
            _log.exception("video %s failed", row.id)
            await self._save(row, status="failed", error="Something broke inside inferd.")
        finally:
            await work.close()

    async def _save(self, row: JobRow, **changes: str) -> JobRow:
        ended = changes.get("status") in ("succeeded", "failed")
        changed = msgspec.structs.replace(
            row, ended_unix_ns=self._clock.unix_ns() if ended else None, **changes
        )
        async with self._database.writing() as connection:
            await jobs.save(connection, changed)
        return changed


async def _film(work: Work) -> bytes:
    film = bytearray()
    async with aclosing(work.events()) as events:
        async for event in events:
            if isinstance(event, Chunk):
                film += event.data
            elif isinstance(event, Filmed):
                return bytes(film)
    raise InferdError("The video ended without its end.")


def _job_id(request_id: str) -> str:
    """`videos_` and 16 base-62 characters, of which the request's id tells which."""
    digest = blake2b(request_id.encode(), digest_size=16).digest()
    return f"videos_{ids.base62(int.from_bytes(digest, 'big'), 16)}"


def _order(row: JobRow, card: ModelCard, versions: Mapping[int, Price], *, paid: bool) -> Order:
    request = msgspec.msgpack.decode(row.request, type=VideoRequest)
    return Order(
        row.request_id,
        card,
        request,
        "openai",
        streamed=False,
        end_user=row.end_user,
        tag=row.tag,
        tier=msgspec.convert(row.tier, Tier),
        paid=paid,
        price=None if row.price_id is None else versions.get(row.price_id),
    )
