"""The ledger's writer for PostgreSQL: one task, group commit, one transaction for each group.

It says the same statements as the writer for SQLite, pipelined: a round trip for each kind and
not for each write. While the database is away the journal counts as the commit. Until all of it
is replayed, whatever comes goes behind it, so that the order stays; nobody waits for the replay.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from inferd.clock import Clock, SystemClock
from inferd.errors import EngineFailed, InferdError, Unavailable
from inferd.storage import ledger_statements as say
from inferd.storage.journal import Journal
from inferd.storage.postgres import Connection, connect, is_conflict, is_refusal
from inferd.storage.rows import LedgerWrite, Release, Reserve, Settle

_log = logging.getLogger("inferd.storage")

GROUP_MAX = 512
GROUP_SECONDS_MAX = 3.0
"""A database that has not committed a group by then is away; the group goes to the journal."""
RETRY_SECONDS = 1.0
"""How often a database that is away is tried again."""
CONFLICT_ATTEMPTS = 3
"""A transaction that PostgreSQL ends so that another gateway's may go on is tried again."""

_Item = tuple[LedgerWrite, "asyncio.Future[bool]"]
_Outcome = bool | InferdError
"""True: written. False: the request was settled before, nothing was written. Or why it failed."""
_INSERT_ENTRY = f"{say.numbered(say.INSERT_ENTRY)} RETURNING request_id"


class PostgresWriter:
    """Owns a connection and a task in the running loop. `start` once; `close` commits the rest."""

    def __init__(self, url: str, directory: Path, *, clock: Clock | None = None) -> None:
        self.healthy = True
        """False while nothing takes a write, or only what the disk's reserve still holds."""
        self._url = url
        self._clock = clock or SystemClock()
        reserve = directory / "ledger.reserve"
        self._journal = Journal(directory / "ledger.journal", reserve=reserve)
        self._refused = Journal(directory / "ledger.refused")
        """Journalled writes that broke a constraint when they were replayed: for a person."""
        self._replayed_bytes = 0
        """How much of the journal the database has."""
        self._away = False
        """The database has not taken the last group."""
        self._turn = asyncio.Lock()
        """Held while the journal grows, and while its last part is replayed."""
        self._queue: deque[_Item] = deque()
        self._arrived = asyncio.Event()
        self._recovered = asyncio.Event()
        self._closing = False
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None

    @property
    def behind(self) -> bool:
        """True while writes lie in the journal that the database does not have."""
        return self._journal.pending()

    def start(self) -> None:
        """Take writes, behind those of an earlier life: see `recovered`."""
        self.healthy = self._journal.keep_reserve()
        # Held by this object, ended and awaited in `close`.
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def recovered(self) -> None:
        """Wait for the replay of an earlier life's journal. Raises Unavailable if it failed."""
        await self._recovered.wait()
        if self.behind:
            raise Unavailable("The ledger cannot be opened: the database does not answer.")

    def submit(self, write: LedgerWrite) -> asyncio.Future[bool]:
        """Queue a write; the future resolves when it is committed, or raises Unavailable.

        False: a settlement of a request that was settled before. Nothing was written then.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append((write, done))
        self._arrived.set()
        return done

    async def close(self) -> None:
        """Commit what is queued and hang up."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.wait([self._mending])
        if self._connection is not None:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(GROUP_SECONDS_MAX):
                    await self._connection.close()

    async def _run(self) -> None:
        try:
            if self.behind:
                await self._caught_up()
        except Exception:  # noqa: BLE001 the outermost loop of the writer: `recovered` raises
            _log.exception("the ledger's journal cannot be replayed")
        self._recovered.set()
        if not self.healthy:
            self._mend_soon()
        while self._queue or not self._closing:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            group = [self._queue.popleft() for _ in range(min(GROUP_MAX, len(self._queue)))]
            if group:
                _tell(group, await self._outcomes([write for write, _ in group]))

    async def _outcomes(self, writes: list[LedgerWrite]) -> list[_Outcome]:
        """What came of each write. Whatever broke: nobody waits for ever, and the task goes on."""
        try:
            return await self._commit(writes)
        except Exception:  # noqa: BLE001 the outermost loop of the writer
            self._hang_up()
            if len(writes) > 1:
                return [one for write in writes for one in await self._outcomes([write])]
            _log.exception("a write of the ledger was lost")
            self.healthy = False
            self._mend_soon()
            return [Unavailable("Usage cannot be recorded at the moment.", retry_after_seconds=5)]

    async def _commit(self, writes: list[LedgerWrite]) -> list[_Outcome]:
        """Commit a group; what came of each write."""
        while True:
            if not self.behind and not self._away:
                outcomes = await self._try(writes)
                if outcomes is not None:
                    return outcomes
                self._away = True
            async with self._turn:
                # While we waited for it the last of the journal may have been replayed.
                if self.behind or self._away:
                    return await self._to_journal(writes)

    async def _to_journal(self, writes: list[LedgerWrite]) -> list[_Outcome]:
        self._mend_soon()
        try:
            await asyncio.to_thread(self._journal.append, writes)
        except OSError:
            self.healthy = False
            error = Unavailable("Usage cannot be recorded at the moment.", retry_after_seconds=5)
            return [error] * len(writes)
        if self._journal.cramped:
            self.healthy = False
        return [True] * len(writes)

    def _mend_soon(self) -> None:
        if self._mending is None or self._mending.done():
            # Held by this object, cancelled in `close`.
            self._mending = asyncio.get_running_loop().create_task(self._mend())

    async def _mend(self) -> None:
        """Try the database again and again. Groups go to the journal meanwhile, without waiting."""
        while self.behind or self._away or not self.healthy:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                if await self._caught_up():
                    self._away = False
                    self.healthy = self._journal.keep_reserve()
            except Exception:  # noqa: BLE001 the outermost loop of mending
                _log.exception("the ledger's journal cannot be replayed")
                self.healthy = False

    async def _caught_up(self) -> bool:
        """Replay the journal; False if the database did not take it."""
        # Asked before anything is held up for it.
        if await self._try([]) is None:
            return False
        while self.behind:
            writes, until = await self._read()
            if len(writes) < GROUP_MAX:
                return await self._replayed_last()
            if not await self._replayed(writes, until):
                return False
        return True

    async def _replayed_last(self) -> bool:
        """The same for what is left, which nothing may be added to meanwhile."""
        async with self._turn:
            writes, until = await self._read()
            if not await self._replayed(writes, until):
                return False
            if len(writes) < GROUP_MAX:
                self._journal.clear()
                self._replayed_bytes, self._away = 0, False
            return True

    async def _read(self) -> tuple[list[LedgerWrite], int]:
        at = self._replayed_bytes
        return await asyncio.to_thread(self._journal.read_some, at, GROUP_MAX)

    async def _replayed(self, writes: Sequence[LedgerWrite], until: int) -> bool:
        outcomes = await self._try(say.dated(writes, self._clock.unix_ns()))
        if outcomes is None:
            return False
        refused = [w for w, o in zip(writes, outcomes, strict=True) if not isinstance(o, bool)]
        if refused:
            await asyncio.to_thread(self._refused.append, refused)
        self._replayed_bytes = until
        return True

    async def _try(self, writes: Sequence[LedgerWrite]) -> list[_Outcome] | None:
        """One transaction; None if the database is away."""
        for _ in range(CONFLICT_ATTEMPTS):
            try:
                return await self._in_time(writes)
            except (OSError, InferdError):
                break
            except Exception as error:  # noqa: BLE001 whatever the driver raises, the journal takes it
                if not is_conflict(error):
                    # What it says may hold what a caller sent.
                    _log.warning("the database took no group: %s", type(error).__name__)
                    break
        self._hang_up()
        return None

    async def _in_time(self, writes: Sequence[LedgerWrite]) -> list[_Outcome]:
        # The driver's own timeouts would wait for the server once more, to cancel and roll back.
        work = asyncio.ensure_future(self._write(writes))
        await asyncio.wait([work], timeout=GROUP_SECONDS_MAX)
        if work.done():
            return work.result()
        self._hang_up()
        work.cancel()
        await asyncio.wait([work], timeout=RETRY_SECONDS)
        raise TimeoutError("The database has not committed in time.")

    async def _write(self, writes: Sequence[LedgerWrite]) -> list[_Outcome]:
        """One transaction. A write that breaks a constraint is left out, the others are in."""
        connection = self._connection
        if connection is None:
            connection = self._connection = await connect(self._url)
        try:
            async with connection.transaction():
                return await _apply(connection, writes)
        except Exception as error:
            if not is_refusal(error):
                raise
        async with connection.transaction():
            return [await _apply_alone(connection, write) for write in writes]

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def _apply_alone(connection: Connection, write: LedgerWrite) -> _Outcome:
    try:
        async with connection.transaction():
            (outcome,) = await _apply(connection, [write])
    except Exception as error:
        if is_refusal(error):
            return EngineFailed("The usage was refused by the ledger.", detail=repr(error))
        raise
    return outcome


async def _apply(connection: Connection, writes: Sequence[LedgerWrite]) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for run in _runs(writes):
        outcomes += await _apply_run(connection, run)
    return outcomes


def _runs(writes: Sequence[LedgerWrite]) -> Iterator[Sequence[LedgerWrite]]:
    """Cut where a request is reserved again after its reservation was dropped."""
    dropped: set[str] = set()
    begin = 0
    for index, write in enumerate(writes):
        if isinstance(write, Release):
            dropped.add(write.request_id)
        elif isinstance(write, Settle):
            dropped.add(write.entry.request_id)
        elif write.reservation.request_id in dropped:
            yield writes[begin:index]
            begin = index
            dropped.clear()
    yield writes[begin:]


async def _apply_run(connection: Connection, writes: Sequence[LedgerWrite]) -> list[_Outcome]:
    """Reservations, then entries, then what is dropped: within a run the order is the same."""
    settles = [write for write in writes if isinstance(write, Settle)]
    reserves = [say.of_write(write).values for write in writes if isinstance(write, Reserve)]
    releases = [say.of_write(write).values for write in writes if isinstance(write, Release)]
    await _execute(connection, say.Batch(say.INSERT_RESERVATION, reserves))
    new = await _insert_entries(connection, settles)
    await _execute(connection, say.Batch(say.DELETE_RESERVATION, releases))
    await _execute(connection, say.let_go(settles))
    fresh = [settle for settle in settles if id(settle) in new]
    for batch in say.booked(fresh) if fresh else ():
        await _execute(connection, batch)
    return [not isinstance(write, Settle) or id(write) in new for write in writes]


async def _insert_entries(connection: Connection, settles: Sequence[Settle]) -> set[int]:
    """Which of them are new, by identity: one group may settle a request twice."""
    if not settles:
        return set()
    rows = [_storable(say.of_write(settle).values) for settle in settles]
    inserted = {row[0] for row in await connection.fetchmany(_INSERT_ENTRY, rows)}
    first: dict[str, int] = {}
    for settle in settles:
        first.setdefault(settle.entry.request_id, id(settle))
    return {identity for request_id, identity in first.items() if request_id in inserted}


def _storable(values: tuple[object, ...]) -> tuple[object, ...]:
    """PostgreSQL's text has no NUL; a caller's name for who asks may."""
    return tuple(
        value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value
        for value in values
    )


async def _execute(connection: Connection, batch: say.Batch) -> None:
    if batch.rows:
        rows = [_storable(row) for row in batch.rows]
        await connection.executemany(say.numbered(batch.sql), rows)


def _tell(group: list[_Item], outcomes: list[_Outcome]) -> None:
    for (_, done), outcome in zip(group, outcomes, strict=True):
        if done.done():
            continue
        if isinstance(outcome, bool):
            done.set_result(outcome)
        else:
            done.set_exception(outcome)
