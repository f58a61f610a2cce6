"""The ledger's writer: one thread, group commit.

Whatever waits is one transaction: begin, write all, commit, tell everybody. No timer: the group
is what arrived while the last commit was done. While the database fails, the journal counts as
the commit; when that fails too, nobody is told that it worked.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from inferd.clock import Clock, SystemClock
from inferd.errors import EngineFailed, InferdError, Unavailable
from inferd.storage import ledger_statements as say
from inferd.storage.database import pragmas
from inferd.storage.journal import Journal
from inferd.storage.rows import LedgerWrite, Settle

_log = logging.getLogger("inferd.storage")

GROUP_MAX = 512
RETRY_SECONDS = 1.0
"""How often the database is tried again while it fails."""

_Item = tuple[LedgerWrite, "asyncio.Future[bool]"]
_Outcome = bool | InferdError
"""True: written. False: the request was settled before, nothing was written. Or why it failed."""


class LedgerWriter:
    """Owns the thread. Start it once; `close` commits what is queued."""

    def __init__(self, path: Path, *, power_safe: bool = False, clock: Clock | None = None) -> None:
        self.healthy = True
        """False while nothing takes a write, or only what the disk's reserve still holds."""
        self._path = path
        self._power_safe = power_safe
        self._clock = clock or SystemClock()
        reserve = path.with_name("ledger.reserve")
        self._journal = Journal(path.with_name("ledger.journal"), reserve=reserve)
        self._refused = Journal(path.with_name("ledger.refused"))
        """Journalled writes that broke a constraint when they were replayed: for a person."""
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    def start(self) -> None:
        """Replay the journal, then take writes. Raises Unavailable if it does not open."""
        try:
            self._recover()
        except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
            raise Unavailable(f"The ledger cannot be opened: {error}.") from error
        self.healthy = self._journal.keep_reserve()
        # A sqlite3 connection belongs to the thread that made it.
        self._close_connection()
        self._thread.start()

    async def recovered(self) -> None:
        """The journal of an earlier life is replayed: `start` has seen to it."""

    @property
    def behind(self) -> bool:
        """True while writes lie in the journal that the database does not have."""
        return self._journal.pending()

    def submit(self, write: LedgerWrite) -> asyncio.Future[bool]:
        """Queue a write; the future resolves when it is committed, or raises Unavailable.

        False: a settlement of a request that was settled before. Nothing was written then.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.put((write, done))
        return done

    async def close(self) -> None:
        """Commit what is queued and end the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            items = [self._next()]
            while len(items) < GROUP_MAX and not self._queue.empty():
                items.append(self._queue.get())
            open_for_more = None not in items
            group = [item for item in items if item is not None]
            if group:
                _tell(group, self._outcomes([write for write, _ in group]))
        self._close_connection()

    def _outcomes(self, writes: list[LedgerWrite]) -> list[_Outcome]:
        """What came of each write. Whatever broke, nobody waits for ever and the thread goes on."""
        try:
            return self._commit(writes)
        except Exception:  # noqa: BLE001 the outermost loop of the writer
            self._close_connection()
            if len(writes) > 1:
                return [outcome for write in writes for outcome in self._outcomes([write])]
            _log.exception("a write of the ledger was lost")
            self.healthy = False
            return [Unavailable("Usage cannot be recorded at the moment.", retry_after_seconds=5)]

    def _next(self) -> _Item | None:
        """Wait for work; while something is wrong, try to mend it now and then."""
        while True:
            if self.healthy and not self._journal.pending():
                return self._queue.get()
            try:
                return self._queue.get(timeout=RETRY_SECONDS)
            except queue.Empty:
                self._mend()

    def _mend(self) -> None:
        try:
            self._recover()
        except (sqlite3.Error, OSError):
            self._close_connection()
        except Exception:  # noqa: BLE001 the outermost loop of the writer
            _log.exception("the ledger's journal cannot be replayed")
            self.healthy = False
            self._close_connection()
        else:
            self.healthy = self._journal.keep_reserve()

    def _commit(self, writes: list[LedgerWrite]) -> list[_Outcome]:
        """Commit a group; what came of each write."""
        try:
            self._recover()
            outcomes = self._write(writes)
        except (sqlite3.Error, OSError):
            self._close_connection()
            return self._to_journal(writes)
        if not self.healthy:
            self.healthy = self._journal.keep_reserve()
        return outcomes

    def _to_journal(self, writes: list[LedgerWrite]) -> list[_Outcome]:
        try:
            self._journal.append(writes)
        except OSError:
            self.healthy = False
            error = Unavailable("Usage cannot be recorded at the moment.", retry_after_seconds=5)
            return [error] * len(writes)
        if self._journal.cramped:
            self.healthy = False
        return [True] * len(writes)

    def _recover(self) -> None:
        if self._journal.pending():
            writes = say.dated(list(self._journal.read()), self._clock.unix_ns())
            outcomes = self._write(writes)
            refused = [w for w, o in zip(writes, outcomes, strict=True) if not isinstance(o, bool)]
            if refused:
                self._refused.append(refused)
            self._journal.clear()
        elif not self.healthy:
            self._write([])

    def _write(self, writes: Sequence[LedgerWrite]) -> list[_Outcome]:
        """One transaction. A write that breaks a constraint is left out, the others are in."""
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            for statement in pragmas(power_safe=self._power_safe):
                self._connection.execute(statement)
        if len(writes) == 1 and not isinstance(writes[0], Settle):
            # One statement is a transaction by itself: a hop through the interpreter lock less.
            return [_apply(self._connection, writes[0])]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            outcomes = _apply_all(self._connection, writes)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return outcomes

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _apply_all(connection: sqlite3.Connection, writes: Sequence[LedgerWrite]) -> list[_Outcome]:
    outcomes = [_apply(connection, write) for write in writes]
    new = [
        write
        for write, outcome in zip(writes, outcomes, strict=True)
        if outcome is True and isinstance(write, Settle)
    ]
    for batch in (say.let_go(writes), *say.booked(new)):
        if batch.rows:
            connection.executemany(batch.sql, batch.rows)
    return outcomes


def _apply(connection: sqlite3.Connection, write: LedgerWrite) -> _Outcome:
    statement = say.of_write(write)
    try:
        changed = connection.execute(statement.sql, statement.values).rowcount
    except sqlite3.IntegrityError:
        return EngineFailed("The usage was refused by the ledger.")
    return changed > 0 or not isinstance(write, Settle)


_Told = tuple["asyncio.Future[bool]", _Outcome]


def _tell(group: list[_Item], outcomes: list[_Outcome]) -> None:
    """Resolve the futures, with one hop for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Told]] = {}
    for (_, done), outcome in zip(group, outcomes, strict=True):
        by_loop.setdefault(done.get_loop(), []).append((done, outcome))
    for loop, told in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, told)


def _resolve(told: list[_Told]) -> None:
    for done, outcome in told:
        if done.done():
            continue
        if isinstance(outcome, bool):
            done.set_result(outcome)
        else:
            done.set_exception(outcome)
