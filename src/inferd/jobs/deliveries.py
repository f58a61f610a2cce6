"""Delivers answers to webhooks: signed, again and again until they arrive, one id throughout."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import msgspec

from inferd.clock import Clock
from inferd.errors import InferdError, NotFound
from inferd.jobs import signature
from inferd.jobs.blobs import Blobs
from inferd.storage import webhook_calls as stored
from inferd.storage.database import Database
from inferd.storage.webhook_calls import Attempt, CallRow

DELAYS_SECONDS = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 18_000.0)
"""Before the second attempt, the third …: eight attempts within eight hours."""
AT_ONCE_MAX = 64
ACCOUNT_AT_ONCE_MAX = 8
"""A receiver that never answers holds up its own account's deliveries alone."""
LOOKED_AT_MAX = 1000
"""Of what is due, the longest due first."""
LOOK_SECONDS = 30.0
"""How often it looks for what is due, should nobody say so."""
ATTEMPTS_KEPT = 50
CLOSE_SECONDS_MAX = 5.0
GONE = 410
"""What a receiver answers that wants no more."""
_NANOS = 1_000_000_000

Post = Callable[[str, Sequence[tuple[str, str]], bytes], Awaitable[int]]
"""Send a body to a URL; the status of the answer. Raises InferdError if there is none."""

_log = logging.getLogger("inferd.jobs")


class _UnderWay(NamedTuple):
    account_id: str
    task: asyncio.Task[None]


class Deliveries:
    """The deliveries of this gateway. `start` once; `close` at the end."""

    def __init__(
        self, database: Database, blobs: Blobs, clock: Clock, gateway: str, keys: Sequence[bytes]
    ) -> None:
        """`keys`: the installation's, the current one first."""
        self.delays_seconds: Sequence[float] = DELAYS_SECONDS
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._gateway = gateway
        self._keys = keys
        self._post: Post | None = None
        self._wake = asyncio.Event()
        self._under_way: dict[str, _UnderWay] = {}
        self._saving: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self._closing = False

    def start(self, post: Post) -> None:
        """Deliver from now on."""
        self._post = post
        # Held by this object, cancelled and awaited in `close`.
        self._loop = asyncio.get_running_loop().create_task(self._go_on())

    async def close(self) -> None:
        """Stop; what was not answered yet is sent again at the next start."""
        self._closing = True
        self._wake.set()
        for one in list(self._under_way.values()):
            one.task.cancel()
        left = [*(one.task for one in self._under_way.values()), *self._saving]
        if self._loop is not None:
            left.append(self._loop)
        if left:
            # What speaks to the database comes to its end: nothing is cut off in the middle.
            _, late = await asyncio.wait(left, timeout=CLOSE_SECONDS_MAX)
            for task in late:
                task.cancel()

    def look(self) -> None:
        """Something is due."""
        self._wake.set()

    def secret(self, account_id: str) -> str:
        """What the account's receivers verify signatures with."""
        return signature.shown(signature.secret_of(self._keys[0], account_id))

    async def resend(self, row: CallRow) -> CallRow:
        """Deliver an answer once more, now, under its id. Raises NotFound without an answer."""
        if row.answer is None:
            raise NotFound("This call has no answer yet.")
        # NotFound for an answer that was deleted.
        await self._blobs.get(row.answer)
        again = msgspec.structs.replace(row, delivery="pending", due_unix_ns=self._clock.unix_ns())
        async with self._database.writing() as connection:
            await stored.save_delivery(connection, again)
        self.look()
        return again

    async def _go_on(self) -> None:
        while not self._closing:
            self._wake.clear()
            wait = LOOK_SECONDS
            try:
                wait = await self._begin_what_is_due()
            except InferdError as error:
                _log.warning("deliveries could not be read: %s", error)
            except Exception:  # noqa: BLE001 the outermost loop of deliveries
                _log.exception("deliveries could not be read")
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _begin_what_is_due(self) -> float:
        """Begin what is due; in how many seconds to look again."""
        now = self._clock.unix_ns()
        async with self._database.reading() as connection:
            # What is under way is due as well, until its end is saved.
            due = await stored.due(connection, self._gateway, now, LOOKED_AT_MAX)
            following = await stored.next_due(connection, self._gateway, now)
        for row in due:
            if self._has_room(row):
                # Held in `_under_way` until it is done.
                task = asyncio.get_running_loop().create_task(self._deliver(row))
                self._under_way[row.request_id] = _UnderWay(row.account_id, task)
                task.add_done_callback(partial(self._ended, row.request_id))
        # The end of one that is under way wakes us, too.
        return LOOK_SECONDS if following is None else min(LOOK_SECONDS, (following - now) / _NANOS)

    def _has_room(self, row: CallRow) -> bool:
        if (
            self._closing
            or row.request_id in self._under_way
            or len(self._under_way) >= AT_ONCE_MAX
        ):
            return False
        own = sum(one.account_id == row.account_id for one in self._under_way.values())
        return own < ACCOUNT_AT_ONCE_MAX

    def _ended(self, request_id: str, _: asyncio.Task[None]) -> None:
        del self._under_way[request_id]
        self._wake.set()

    async def _deliver(self, row: CallRow) -> None:
        status, error = 0, "Something broke inside inferd."
        try:
            status, error = await self._attempt(row)
        except Exception:  # noqa: BLE001 the outermost loop of one delivery
            _log.exception("the delivery of %s broke", row.request_id)
        attempt = Attempt(self._clock.unix_ns(), status, error or None)
        # Held in `_saving` until it is done.
        saving = asyncio.get_running_loop().create_task(self._save(row, attempt))
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)
        try:
            await asyncio.shield(saving)
        except InferdError as away:
            # It is due still, and sent once more under its id; but not again and again meanwhile.
            _log.warning("the delivery of %s could not be noted: %s", row.request_id, away)
            await asyncio.sleep(LOOK_SECONDS)

    async def _attempt(self, row: CallRow) -> tuple[int, str]:
        """(status, what went wrong)."""
        assert self._post is not None, "started"
        assert row.answer is not None, "only what is answered is due"
        try:
            body = await self._blobs.get(row.answer)
            seconds = self._clock.unix_ns() // _NANOS
            secrets = [signature.secret_of(key, row.account_id) for key in self._keys]
            signed = signature.headers(f"msg_{row.request_id}", seconds, body, secrets)
            status = await self._post(row.webhook, signed, body)
        except InferdError as error:
            return 0, error.message
        return status, "" if 200 <= status < 300 else f"It answered with status {status}."

    async def _save(self, row: CallRow, attempt: Attempt) -> None:
        tried = [*row.tried(), attempt][-ATTEMPTS_KEPT:]
        due = None
        delivery = "delivered" if attempt.error is None else "failed"
        if attempt.error is not None and attempt.status != GONE:
            missed = sum(one.error is not None for one in tried)
            if missed <= len(self.delays_seconds):
                delay = self.delays_seconds[missed - 1] * random.uniform(1, 1.1)
                due = self._clock.unix_ns() + int(delay * _NANOS)
                delivery = "pending"
        changed = msgspec.structs.replace(
            row, delivery=delivery, due_unix_ns=due, attempts=msgspec.msgpack.encode(tried)
        )
        async with self._database.writing() as connection:
            await stored.save_attempt(connection, changed)
