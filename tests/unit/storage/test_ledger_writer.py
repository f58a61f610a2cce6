"""What the ledger's writer says is committed is there once, whatever happens next."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from inferd.errors import EngineFailed, Unavailable
from inferd.storage.database import migrate
from inferd.storage.journal import Journal
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.rows import EntryRow, Release, ReservationRow, Reserve, Settle
from tests.ledger import entries_in


def entry(number: int, **changes: object) -> EntryRow:
    row = EntryRow(
        request_id=f"R{number:023d}",
        account_id="acc",
        token_id="tok",
        model="a/b",
        task="text-generation",
        dialect="openai",
        streamed=False,
        status="succeeded",
        stage="done",
        error_code=None,
        end_user=None,
        input_tokens=3,
        cached_tokens=1,
        output_tokens=2,
        estimated=False,
        price_id=1,
        cost_nanos=7,
        created_unix_ns=1,
        settled_unix_ns=2,
        queue_ms=0,
        first_event_ms=None,
        runtime_ms=4,
    )
    return msgspec.structs.replace(row, **changes)


@functools.cache
def _made() -> bytes:
    """A migrated file: migrating takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inferd.db"
        _make(path)
        return path.read_bytes()


def make_database(path: Path) -> None:
    path.write_bytes(_made())


def _make(path: Path) -> None:
    migrate(path)
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO prices (id, model, input_rate, cached_rate, output_rate, valid_from_unix_ns) "
        "VALUES (1, 'a/b', 1, 1, 1, 0)"
    )
    connection.commit()
    connection.close()


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[LedgerWriter]:
    make_database(tmp_path / "inferd.db")
    running = LedgerWriter(tmp_path / "inferd.db")
    running.start()
    yield running
    await running.close()


def rows(tmp_path: Path) -> list[EntryRow]:
    return entries_in(tmp_path / "inferd.db")


def reservations(tmp_path: Path) -> list[str]:
    connection = sqlite3.connect(tmp_path / "inferd.db")
    found = [row[0] for row in connection.execute("SELECT request_id FROM reservations")]
    connection.close()
    return found


async def test_an_entry_comes_back_as_it_was(tmp_path: Path, writer: LedgerWriter) -> None:
    row = entry(1, end_user="team", first_event_ms=9, streamed=True)
    await writer.submit(Settle(row))
    assert rows(tmp_path) == [row]


async def test_settling_twice_books_once(tmp_path: Path, writer: LedgerWriter) -> None:
    await asyncio.gather(writer.submit(Settle(entry(1))), writer.submit(Settle(entry(1))))
    await writer.submit(Settle(entry(1, cost_nanos=99)))
    assert rows(tmp_path) == [entry(1)]


async def test_a_settlement_drops_its_reservation_in_the_same_commit(
    tmp_path: Path, writer: LedgerWriter
) -> None:
    for number in (1, 2):
        await writer.submit(Reserve(ReservationRow(entry(number).request_id, "acc", 5, 1)))
    assert len(reservations(tmp_path)) == 2
    await writer.submit(Settle(entry(1)))
    await writer.submit(Release(entry(2).request_id))
    assert reservations(tmp_path) == []


async def test_a_thousand_at_once_are_all_there(tmp_path: Path, writer: LedgerWriter) -> None:
    await asyncio.gather(*(writer.submit(Settle(entry(n))) for n in range(1000)))
    assert len(rows(tmp_path)) == 1000


@pytest.mark.parametrize(
    "broken", [{"cost_nanos": -1}, {"cached_tokens": 4}, {"output_tokens": -1}, {"price_id": 77}]
)
async def test_an_entry_that_breaks_an_invariant_fails_alone(
    tmp_path: Path, writer: LedgerWriter, broken: dict[str, int]
) -> None:
    good, bad = writer.submit(Settle(entry(1))), writer.submit(Settle(entry(2, **broken)))
    with pytest.raises(EngineFailed):
        await bad
    await good
    assert rows(tmp_path) == [entry(1)]


async def test_while_the_database_is_away_the_journal_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_database(tmp_path / "inferd.db")
    monkeypatch.setattr("inferd.storage.database.BUSY_TIMEOUT_MS", 1)
    writer = LedgerWriter(tmp_path / "inferd.db")
    writer.start()
    await writer.submit(Settle(entry(1)))
    blocker = sqlite3.connect(tmp_path / "inferd.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    await writer.submit(Settle(entry(2)))
    journal = Journal(tmp_path / "ledger.journal")
    assert list(journal.read()) == [Settle(entry(2))]
    assert writer.healthy
    blocker.execute("ROLLBACK")
    blocker.close()
    await writer.submit(Settle(entry(3)))
    ids = sorted(row.request_id for row in rows(tmp_path))
    assert ids == [entry(n).request_id for n in (1, 2, 3)]
    assert not journal.path.exists()
    await writer.close()


async def test_the_journal_is_replayed_at_start_and_twice_is_once(tmp_path: Path) -> None:
    make_database(tmp_path / "inferd.db")
    Journal(tmp_path / "ledger.journal").append([Settle(entry(1)), Settle(entry(2))])
    for _ in range(2):
        writer = LedgerWriter(tmp_path / "inferd.db")
        writer.start()
        await writer.close()
        Journal(tmp_path / "ledger.journal").append([Settle(entry(1))])
    assert [row.request_id for row in rows(tmp_path)] == [entry(n).request_id for n in (1, 2)]


def test_a_torn_last_line_never_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger.journal")
    journal.append([Settle(entry(1))])
    with journal.path.open("ab") as file:
        file.write(b'{"type":"settle","entry":{"requ')
    assert list(journal.read()) == [Settle(entry(1))]


async def test_when_nothing_takes_the_write_nobody_is_told_that_it_worked(
    tmp_path: Path, writer: LedgerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("inferd.storage.ledger_writer._apply", full)
        patched.setattr(Journal, "append", full)
        with pytest.raises(Unavailable):
            await writer.submit(Settle(entry(1)))
        assert not writer.healthy
    await writer.submit(Settle(entry(2)))
    assert writer.healthy
    assert rows(tmp_path) == [entry(2)]


KILLED = """
import asyncio, sys
from pathlib import Path
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.rows import Settle
from tests.unit.storage.test_ledger_writer import entry

async def main():
    writer = LedgerWriter(Path(sys.argv[1]))
    writer.start()
    async def one(n):
        await writer.submit(Settle(entry(n)))
        print(n, flush=True)
    await asyncio.gather(*(one(n) for n in range(100_000)))

asyncio.run(main())
"""


def test_what_was_acknowledged_before_a_kill_9_is_there_once(tmp_path: Path) -> None:
    make_database(tmp_path / "inferd.db")
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "inferd.db")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(300)]
    os.kill(child.pid, signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().splitlines() if line]
    child.stdout.close()
    child.wait()
    ids = [row.request_id for row in rows(tmp_path)]
    assert {entry(n).request_id for n in told} <= set(ids)
    assert len(ids) == len(set(ids)) < 100_000
