"""What every writer of the ledger promises: what it says is committed is there once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from inferd.errors import EngineFailed, Unavailable
from inferd.metering.invoices import is_final
from inferd.metering.periods import Month
from inferd.storage import ledger_writer, postgres_writer
from inferd.storage.journal import Journal
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.postgres_writer import PostgresWriter
from inferd.storage.rows import LedgerWrite, Release, ReservationRow, Reserve, Settle
from tests.books import Books, entry, until

Writer = LedgerWriter | PostgresWriter
RESERVATIONS = "SELECT request_id FROM reservations"
SPENT = "SELECT key, spent_nanos FROM purses ORDER BY key"


@pytest.fixture
async def books(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Books:
    """An empty ledger on each database."""
    sqlite = database_url.startswith("sqlite")
    made = Books(database_url, tmp_path, None if sqlite else request.getfixturevalue("postgres"))
    await made.make()
    return made


@pytest.fixture
async def writer(books: Books) -> AsyncIterator[Writer]:
    """A running writer."""
    running = books.writer()
    running.start()
    await running.recovered()
    yield running
    await running.close()


def reserve(number: int) -> Reserve:
    return Reserve(ReservationRow(entry(number).request_id, "acc", 5, 1))


async def test_an_entry_comes_back_as_it_was(books: Books, writer: Writer) -> None:
    row = entry(1, end_user="team", first_event_ms=9, streamed=True, tag="t", jwt_id="j")
    assert await writer.submit(Settle(row))
    assert await books.rows() == [row]


async def test_settling_twice_books_and_spends_once(books: Books, writer: Writer) -> None:
    twice = [writer.submit(Settle(entry(1))) for _ in range(2)]
    assert await asyncio.gather(*twice) == [True, False]
    assert not await writer.submit(Settle(entry(1, cost_nanos=99)))
    assert await books.rows() == [entry(1)]
    assert await books.ask(SPENT) == [
        ("credit:acc", 7),
        ("month:acc:1970-01", 7),
        ("token:tok:1970-01", 7),
    ]


async def test_a_settlement_drops_its_reservation_in_the_same_commit(
    books: Books, writer: Writer
) -> None:
    await asyncio.gather(*(writer.submit(reserve(number)) for number in (1, 2)))
    assert len(await books.ask(RESERVATIONS)) == 2
    await writer.submit(Settle(entry(1)))
    await writer.submit(Release(entry(2).request_id))
    assert await books.ask(RESERVATIONS) == []


async def test_writes_of_one_group_keep_their_order(books: Books, writer: Writer) -> None:
    again = [reserve(1), Release(entry(1).request_id), reserve(1)]
    gone = [reserve(2), Settle(entry(2))]
    both: list[LedgerWrite] = [*again, *gone]
    await asyncio.gather(*(writer.submit(write) for write in both))
    assert await books.ask(RESERVATIONS) == [(entry(1).request_id,)]


async def test_a_thousand_at_once_are_all_there(books: Books, writer: Writer) -> None:
    await asyncio.gather(*(writer.submit(Settle(entry(n))) for n in range(1000)))
    assert len(await books.rows()) == 1000
    assert (await books.ask(SPENT))[0] == ("credit:acc", 7000)


@pytest.mark.parametrize(
    "broken", [{"cost_nanos": -1}, {"cached_tokens": 4}, {"output_tokens": -1}, {"price_id": 77}]
)
async def test_an_entry_that_breaks_an_invariant_fails_alone(
    books: Books, writer: Writer, broken: dict[str, int]
) -> None:
    rows = [entry(1), entry(2, **broken), entry(3)]
    told = await asyncio.gather(
        *(writer.submit(Settle(row)) for row in rows), return_exceptions=True
    )
    assert (told[0], told[2]) == (True, True)
    assert isinstance(told[1], EngineFailed)
    assert await books.rows() == [entry(1), entry(3)]
    assert (await books.ask(SPENT))[0] == ("credit:acc", 14)


async def test_a_callers_odd_text_costs_nobody_his_entry(books: Books, writer: Writer) -> None:
    assert await writer.submit(Settle(entry(1, end_user="a\0b'; DROP TABLE entries; --")))
    assert [row.cost_nanos for row in await books.rows()] == [7]


async def test_a_write_that_nobody_foresaw_fails_alone_and_the_writer_goes_on(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = books.writer()
    commit: Any = type(writer)._commit  # pyright: ignore[reportPrivateUsage]

    def broken(self: Writer, writes: list[LedgerWrite]) -> Any:
        if Settle(entry(2)) in writes:
            raise RuntimeError("nobody foresaw it")
        return commit(self, writes)

    monkeypatch.setattr(type(writer), "_commit", broken)
    writer.start()
    await writer.recovered()
    async with asyncio.timeout(10):
        told = await asyncio.gather(
            *(writer.submit(Settle(entry(n))) for n in (1, 2, 3)), return_exceptions=True
        )
        assert (told[0], told[2]) == (True, True)
        assert isinstance(told[1], Unavailable)
        with pytest.raises(Unavailable):
            await writer.submit(Settle(entry(2)))
        assert not writer.healthy
        await until(lambda: writer.healthy)
        assert await writer.submit(Settle(entry(4)))
        await writer.close()
    assert await books.rows() == [entry(1), entry(3), entry(4)]


async def test_a_journal_that_cannot_be_read_is_told_and_not_waited_for(books: Books) -> None:
    (books.directory / "ledger.journal").write_bytes(b"what is this?\n")
    writer = books.writer()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable):
            await opened(writer)
        await writer.close()


async def test_a_journal_that_breaks_later_is_read_again_and_again(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd.storage.database.BUSY_TIMEOUT_MS", 1)
    for module in (ledger_writer, postgres_writer):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    broken: list[int] = []

    def no(*_: object) -> Any:
        broken.append(1)
        raise RuntimeError("nobody foresaw it")

    writer = books.writer()
    writer.start()
    await writer.recovered()
    await books.go_away()
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "read", no)
        patched.setattr(Journal, "read_some", no)
        assert await writer.submit(Settle(entry(1)))
        await books.come_back()
        await until(lambda: len(broken) > 2)
        assert not writer.healthy
    await until(lambda: writer.healthy)
    await writer.close()
    assert await books.rows() == [entry(1)]


async def opened(writer: Writer) -> None:
    writer.start()
    await writer.recovered()


async def test_while_the_database_is_away_the_journal_counts(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd.storage.database.BUSY_TIMEOUT_MS", 1)
    for module in (ledger_writer, postgres_writer):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    writer = books.writer()
    writer.start()
    await writer.recovered()
    await writer.submit(reserve(1))
    await books.go_away()
    await asyncio.gather(*(writer.submit(Settle(entry(n))) for n in range(1, 1200)))
    assert writer.healthy
    assert writer.behind
    await books.come_back()
    await until(lambda: not writer.behind)
    await writer.submit(Settle(entry(2000)))
    assert await books.ask(RESERVATIONS) == []
    assert len(await books.rows()) == 1200
    assert (await books.ask(SPENT))[0] == ("credit:acc", 7 * 1200)
    assert not (books.directory / "ledger.journal").exists()
    await writer.close()


async def test_when_nothing_takes_the_write_nobody_is_told_that_it_worked(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inferd.storage.database.BUSY_TIMEOUT_MS", 1)
    for module in (ledger_writer, postgres_writer):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    writer = books.writer()
    writer.start()
    await writer.recovered()
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", full)
        await books.go_away()
        with pytest.raises(Unavailable):
            await writer.submit(Settle(entry(1)))
        assert not writer.healthy
        await books.come_back()
    await until(lambda: writer.healthy)
    await writer.submit(Settle(entry(2)))
    assert await books.rows() == [entry(2)]
    await writer.close()


async def test_the_journal_is_replayed_at_start_and_twice_is_once(books: Books) -> None:
    journal = Journal(books.directory / "ledger.journal")
    journal.append([reserve(1), Settle(entry(1)), Settle(entry(2))])
    for _ in range(2):
        writer = books.writer()
        writer.start()
        await writer.recovered()
        await writer.close()
        Journal(journal.path).append([reserve(1), Settle(entry(1))])
    assert await books.rows() == [entry(1), entry(2)]
    assert (await books.ask(SPENT))[0] == ("credit:acc", 14)
    assert await books.ask(RESERVATIONS) == []


@pytest.mark.parametrize(("minutes", "late"), [(29, False), (31, True)])
async def test_what_is_replayed_after_its_month_is_final_counts_in_the_next(
    books: Books, minutes: int, late: bool
) -> None:
    december = round(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * 10**9
    now = december + minutes * 60 * 10**9
    rows = [entry(n, settled_unix_ns=december - 1) for n in (1, 2)]
    Journal(books.directory / "ledger.journal").append([Settle(row) for row in rows])
    writer = books.writer(now)
    await opened(writer)
    # A second life finds the journal of the first one: nothing is booked twice.
    assert not await writer.submit(Settle(rows[0]))
    await writer.close()
    assert [row.settled_unix_ns for row in await books.rows()] == [
        now if late else december - 1
    ] * 2
    day = (now if late else december - 1) // (86_400 * 10**9)
    assert await books.ask("SELECT day, cost_nanos FROM rollups") == [(day, 14)]
    assert is_final(Month(2026, 11), now) is False
    assert is_final(Month(2026, 11), december + 3600 * 10**9)


async def test_what_is_refused_at_a_replay_is_kept_for_a_person(books: Books) -> None:
    bad = Settle(entry(2, price_id=77))
    Journal(books.directory / "ledger.journal").append([Settle(entry(1)), bad])
    writer = books.writer()
    writer.start()
    await writer.recovered()
    await writer.close()
    assert await books.rows() == [entry(1)]
    assert list(Journal(books.directory / "ledger.refused").read()) == [bad]


KILLED = """
import asyncio, sys
from pathlib import Path
from inferd.storage.rows import Settle
from tests.books import entry, writer_of

async def main():
    writer = writer_of(sys.argv[1], Path(sys.argv[2]))
    writer.start()
    async def one(n):
        await writer.submit(Settle(entry(n)))
        print(n, flush=True)
    await asyncio.gather(*(one(n) for n in range(20_000)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_before_a_kill_9_is_there_once(books: Books) -> None:
    child = subprocess.Popen(  # noqa: ASYNC220 it starts at once
        [sys.executable, "-c", KILLED, books.url, str(books.directory)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(300)]
    os.kill(child.pid, signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().splitlines() if line]
    child.stdout.close()
    child.wait()
    ids = [row.request_id for row in await books.rows()]
    assert {entry(n).request_id for n in told} <= set(ids)
    assert len(ids) == len(set(ids)) < 20_000
    assert (await books.ask(SPENT))[0] == ("credit:acc", 7 * len(ids))
