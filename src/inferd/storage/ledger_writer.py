"""The ledger's writer: one thread, group commit.

Whatever waits is one transaction: begin, write all, commit, tell everybody. No timer: the group
is what arrived while the last commit was done. While the database fails, the journal counts as
the commit; when that fails too, nobody is told that it worked.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from inferd.errors import EngineFailed, InferdError, Unavailable
from inferd.storage.database import pragmas
from inferd.storage.journal import Journal
from inferd.storage.rows import EntryRow, LedgerWrite, Reserve, Settle

_COLUMNS = EntryRow.__struct_fields__
_SETTLE = (
    # Not OR IGNORE: that would also swallow a row that breaks a CHECK.
    f"INSERT INTO entries ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (request_id) DO NOTHING"
)
_RESERVE = "INSERT INTO reservations VALUES (?, ?, ?, ?) ON CONFLICT (request_id) DO NOTHING"
_RELEASE = "DELETE FROM reservations WHERE request_id = ?"
GROUP_MAX = 512
RETRY_SECONDS = 1.0
"""How often the database is tried again while it fails."""

_Item = tuple[LedgerWrite, "asyncio.Future[None]"]


class LedgerWriter:
    """Owns the thread. Start it once; `close` commits what is queued."""

    def __init__(self, path: Path, *, power_safe: bool = False) -> None:
        self.healthy = True
        """False while neither the database nor the journal takes a write."""
        self._path = path
        self._power_safe = power_safe
        self._journal = Journal(path.with_name("ledger.journal"))
        self._refused = Journal(path.with_name("ledger.refused"))
        """Journalled writes that broke a constraint when they were replayed: for a person."""
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    def start(self) -> None:
        """Replay the journal, then take writes. Raises Unavailable if it does not open."""
        try:
            self._recover()
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"The ledger cannot be opened: {error}.") from error
        # A sqlite3 connection belongs to the thread that made it.
        self._close_connection()
        self._thread.start()

    def submit(self, write: LedgerWrite) -> asyncio.Future[None]:
        """Queue a write; the future resolves when it is committed, or raises Unavailable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
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
                _tell(group, self._commit([write for write, _ in group]))
        self._close_connection()

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
        else:
            self.healthy = True

    def _commit(self, writes: list[LedgerWrite]) -> dict[int, InferdError]:
        """Commit a group; index → why that write did not count."""
        try:
            self._recover()
            refused = self._write(writes)
        except (sqlite3.Error, OSError):
            self._close_connection()
            return self._to_journal(writes)
        self.healthy = True
        return {index: EngineFailed("The usage was refused by the ledger.") for index in refused}

    def _to_journal(self, writes: list[LedgerWrite]) -> dict[int, InferdError]:
        try:
            self._journal.append(writes)
        except OSError:
            self.healthy = False
            error = Unavailable("Usage cannot be recorded at the moment.", retry_after_seconds=5)
            return dict.fromkeys(range(len(writes)), error)
        return {}

    def _recover(self) -> None:
        if self._journal.pending():
            writes = list(self._journal.read())
            refused = self._write(writes)
            if refused:
                self._refused.append([writes[index] for index in refused])
            self._journal.clear()
        elif not self.healthy:
            self._write([])

    def _write(self, writes: Sequence[LedgerWrite]) -> list[int]:
        """One transaction. Returns the writes that break a constraint; the others are in."""
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            for statement in pragmas(power_safe=self._power_safe):
                self._connection.execute(statement)
        if len(writes) == 1 and not (isinstance(writes[0], Settle) and writes[0].held):
            # One statement is a transaction by itself: a hop through the interpreter lock less.
            return self._apply_all(self._connection, writes)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            refused = self._apply_all(self._connection, writes)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return refused

    def _apply_all(
        self, connection: sqlite3.Connection, writes: Sequence[LedgerWrite]
    ) -> list[int]:
        refused: list[int] = []
        for index, write in enumerate(writes):
            try:
                _apply(connection, write)
            except sqlite3.IntegrityError:
                refused.append(index)
        return refused

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _apply(connection: sqlite3.Connection, write: LedgerWrite) -> None:
    if isinstance(write, Settle):
        entry = write.entry
        connection.execute(_SETTLE, msgspec.structs.astuple(entry))
        if write.held:
            connection.execute(_RELEASE, (entry.request_id,))
    elif isinstance(write, Reserve):
        row = write.reservation
        values = (row.request_id, row.account_id, row.nanos, row.created_unix_ns)
        connection.execute(_RESERVE, values)
    else:
        connection.execute(_RELEASE, (write.request_id,))


_Outcome = tuple["asyncio.Future[None]", InferdError | None]


def _tell(group: list[_Item], errors: dict[int, InferdError]) -> None:
    """Resolve the futures, with one hop for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for index, (_, done) in enumerate(group):
        by_loop.setdefault(done.get_loop(), []).append((done, errors.get(index)))
    for loop, outcomes in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, outcomes)


def _resolve(outcomes: list[_Outcome]) -> None:
    for done, error in outcomes:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
