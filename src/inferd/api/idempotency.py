"""Idempotency-Key: a call that is sent again is computed and billed once, and answered the same.

The key is claimed in the database before the call is admitted, and its answer is stored before the
last byte goes out. While it runs, the same key answers 409; afterwards what was answered, streams
too. A call with a key runs to its end even if its client leaves: he may come back for the answer.
What failed and cost nothing is forgotten, so it runs anew.

If the process dies between the settlement and the answer, the call was billed and nobody has its
answer: sent again, it is computed again, for nothing. If it died before, it begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

import msgspec

from inferd.access.caller import INFERENCE_RUN, Caller
from inferd.admission.work import Order, Work
from inferd.api.exchange import Exchange
from inferd.clock import Clock
from inferd.errors import (
    AnswerNotKept,
    BadRequest,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InferdError,
    TooManyRequests,
)
from inferd.metering.ledger import Ledger
from inferd.storage import entries
from inferd.storage import idempotency as stored
from inferd.storage.database import Database
from inferd.storage.idempotency import KeyedCall

HEADER = b"idempotency-key"
REPLAYED = (b"idempotent-replayed", b"true")
KEY_CHARACTERS_MAX = 255
KEPT_SECONDS = 24 * 3600
BODY_BYTES_MAX = 16 * 1024 * 1024
"""A longer answer is not kept; asking for it again is refused, and not billed."""
ACCOUNT_BYTES_MAX = 256 * 1024 * 1024
"""Of an account's answers together; beyond it the oldest are not kept."""
ACCOUNT_KEYS_MAX = 1_000_000
"""Of an account within 24 hours."""
SWEEP_SECONDS = 60
_SECOND_NS = 1_000_000_000
_NOT_KEPT = frozenset({b"content-length", b"connection"})

_log = logging.getLogger("inferd.api")


class _Claimed(NamedTuple):
    call: KeyedCall
    paid: bool = False
    before: str | None = None


class Recorder:
    """A call with a key that runs: collects its answer and stores it."""

    def __init__(self, keys: IdempotencyKeys, claimed: _Claimed) -> None:
        self.paid = claimed.paid
        """It was billed before a crash that lost its answer."""
        self.before = claimed.before
        """The request id under which a process that is dead had begun it."""
        self._keys = keys
        self._call = claimed.call
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._too_large = False
        self._over = False

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Status and headers are about to be sent."""
        self._status = status
        self._headers = [pair for pair in headers if pair[0] not in _NOT_KEPT]

    def add(self, chunk: bytes) -> None:
        """A piece of the body is about to be sent. Pings are no part of an answer."""
        if chunk.startswith(b": "):
            return
        self._too_large = self._too_large or len(self._body) + len(chunk) > BODY_BYTES_MAX
        if not self._too_large:
            self._body += chunk

    async def keep(self, work: Work | None) -> None:
        """Store the answer, or forget a failure that cost nothing. Before the last byte."""
        failed = self._status >= 400
        if work is not None:
            failed = failed or work.error is not None
            if failed:
                await work.close()
        cost = work.entry.cost_nanos if work is not None and work.entry is not None else 0
        if failed and not cost:
            await self.close()
            return
        self._over = True
        body = None if self._too_large else bytes(self._body)
        await self._keys.keep(
            msgspec.structs.replace(
                self._call,
                status=self._status,
                headers=msgspec.msgpack.encode(self._headers),
                body=body,
                body_bytes=len(body or b""),
            )
        )

    async def close(self) -> None:
        """Whatever was not stored came to nothing: the key may be used anew."""
        if not self._over:
            self._over = True
            await self._keys.forget(self._call, paid=self.paid)


class IdempotencyKeys:
    """The keys of all accounts."""

    def __init__(self, database: Database, ledger: Ledger, clock: Clock) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._running: set[str] = set()
        """Request ids of this process."""
        self._full: frozenset[str] = frozenset()
        """Accounts that have used too many keys."""
        self._swept_seconds = clock.seconds()
        self._sweeping: asyncio.Task[None] | None = None

    async def replayed(self, exchange: Exchange, model: str) -> bool:
        """Answer a call that was answered before. Otherwise, of a call with a key, record it.

        Raises IdempotencyKeyInUse, IdempotencyKeyReused, AnswerNotKept, BadRequest, Unavailable.
        """
        raw = exchange.headers.get(HEADER)
        if raw is None:
            return False
        caller = exchange.caller
        caller.require_scope(INFERENCE_RUN)
        caller.require_model(model)
        call = await self._call(exchange, caller, _key(raw))
        claimed = await self._claim(call)
        done = claimed.call
        exchange.request_id = done.request_id
        if done.status is None:
            self._running.add(done.request_id)
            exchange.recorder = Recorder(self, claimed)
            return False
        if done.body is None:
            raise AnswerNotKept(
                f"The call under this Idempotency-Key was answered and billed as "
                f"{done.request_id}; its answer was too large to be kept."
            )
        headers = msgspec.msgpack.decode(done.headers or b"\x90", type=list[tuple[bytes, bytes]])
        length = (b"content-length", b"%d" % len(done.body))
        await exchange.start(done.status, [*headers, length, REPLAYED])
        await exchange.end(done.body)
        return True

    async def keep(self, call: KeyedCall) -> None:
        """Store an answer. Should the database not take it, a repeated call computes it anew."""
        try:
            async with self._database.writing() as connection:
                await stored.keep(connection, call)
        except InferdError as error:
            _log.warning("the answer of %s could not be kept: %s", call.request_id, error)
        finally:
            self._running.discard(call.request_id)

    async def forget(self, call: KeyedCall, *, paid: bool) -> None:
        """Free the key of a call that came to nothing; what is paid stays paid."""
        try:
            if not paid:
                async with self._database.writing() as connection:
                    await stored.forget(connection, call)
        except InferdError as error:
            _log.warning("the key of %s could not be freed: %s", call.request_id, error)
        finally:
            self._running.discard(call.request_id)

    async def _call(self, exchange: Exchange, caller: Caller, key: str) -> KeyedCall:
        if caller.account_id in self._full:
            raise TooManyRequests(
                f"An account may use {ACCOUNT_KEYS_MAX} idempotency keys in 24 hours.",
                retry_after_seconds=SWEEP_SECONDS,
            )
        self._sweep_soon()
        return KeyedCall(
            account_id=caller.account_id,
            key=key,
            fingerprint=exchange.fingerprint,
            request_id=exchange.request_id,
            gateway=self._ledger.gateway,
            epoch_unix_ns=self._ledger.epoch_unix_ns,
            created_unix_ns=self._clock.unix_ns(),
        )

    async def _claim(self, call: KeyedCall) -> _Claimed:
        """The call that runs from now on, or was answered before."""
        expired = call.created_unix_ns - KEPT_SECONDS * _SECOND_NS
        async with self._database.writing() as connection:
            if await stored.claim(connection, call, expired):
                return _Claimed(call)
            found = await stored.get(connection, call.account_id, call.key)
            if found is None:
                raise _in_use()
            if found.fingerprint != call.fingerprint:
                raise IdempotencyKeyReused(
                    "This Idempotency-Key was used for another request: use a new key.",
                )
            if found.status is not None:
                return _Claimed(found)
            gateway = await stored.gateway_of(connection, found.gateway)
            if self._runs(found, gateway):
                raise _in_use()
            paid = bool(await entries.succeeded(connection, [found.request_id]))
            # What is paid keeps its request id, by which the ledger knows it.
            heir = msgspec.structs.replace(call, request_id=found.request_id) if paid else call
            if not await stored.take_over(connection, found, heir):
                raise _in_use()
        return _Claimed(heir, paid, found.request_id)

    def _runs(self, call: KeyedCall, gateway: tuple[int, int] | None) -> bool:
        """True if the call may still come to its end, or to the ledger."""
        mine = self._ledger.gateway, self._ledger.epoch_unix_ns
        if (call.gateway, call.epoch_unix_ns) == mine:
            # Not running here and not answered: its answer could not be stored.
            return call.request_id in self._running or self._ledger.behind
        if call.gateway == self._ledger.gateway:
            return False
        # Of another gateway: it is over once that one has started again, its journal replayed.
        return gateway is not None and gateway[0] == call.epoch_unix_ns

    def _sweep_soon(self) -> None:
        now = self._clock.seconds()
        if now - self._swept_seconds < SWEEP_SECONDS or self._sweeping is not None:
            return
        self._swept_seconds = now
        # Held by this object; it ends by itself.
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        """Forget what is a day old; bound what an account keeps."""
        before = self._clock.unix_ns() - KEPT_SECONDS * _SECOND_NS
        try:
            more = True
            while more:
                async with self._database.writing() as connection:
                    more = await stored.sweep(connection, before)
            async with self._database.reading() as connection:
                sizes = await stored.sizes(connection)
            self._full = frozenset(one for one, keys, _ in sizes if keys >= ACCOUNT_KEYS_MAX)
            for account_id, _, nbytes in sizes:
                if nbytes > ACCOUNT_BYTES_MAX:
                    async with self._database.writing() as connection:
                        excess = nbytes - ACCOUNT_BYTES_MAX
                        await stored.drop_bodies(connection, account_id, excess)
        except InferdError as error:
            _log.warning("old idempotency keys could not be forgotten: %s", error)
        finally:
            self._sweeping = None


def paid(exchange: Exchange, order: Order) -> Order:
    """The order; of a call that was billed before and lost its answer, for nothing."""
    if exchange.recorder is None or not exchange.recorder.paid:
        return order
    return msgspec.structs.replace(order, paid=True)


def _key(raw: bytes) -> str:
    key = raw.decode("latin-1").strip()
    if not key or len(key) > KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        raise BadRequest(
            f"Idempotency-Key is 1 to {KEY_CHARACTERS_MAX} printable ASCII characters."
        )
    return key


def _in_use() -> IdempotencyKeyInUse:
    return IdempotencyKeyInUse(
        "The call under this Idempotency-Key is still running: ask again.", retry_after_seconds=1
    )
