"""kill -9 between every two steps of reserve → run → settle → tell: the money is right again."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from inferd.clock import SystemClock
from inferd.metering.ledger import Ledger
from inferd.metering.payer import Payer
from inferd.metering.verify import verify
from inferd.storage.database import Database
from inferd.storage.ledger_statements import purse_keys
from inferd.storage.ledger_writer import LedgerWriter
from tests.gateway import Gateway, Response, gateway
from tests.ledger import entries_in
from tests.unit.metering.crash_points import CREDIT, DIES_AT, POINTS, REQUESTS, ask
from tests.unit.storage.test_ledger_writer import make_database


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them have died, each in its own folder."""
    folder = tmp_path_factory.mktemp("crashes")
    make_database(folder / "inferd.db")
    command = [sys.executable, "-m", "tests.unit.metering.crash_points", str(folder), *POINTS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


@pytest.mark.parametrize("point", POINTS)
async def test_after_a_kill_every_answer_is_in_the_ledger_once(crashes: Path, point: str) -> None:
    folder = crashes / point
    assert (folder / "status").read_text() == "-9", "it met its point"
    seen_file = folder / "seen"
    seen = seen_file.read_text().split() if seen_file.exists() else []
    path = folder / "inferd.db"
    database, writer = Database(path), LedgerWriter(path)
    ledger = Ledger(writer, database, SystemClock())
    await ledger.start()
    try:
        entries = entries_in(path)
        ids = Counter(entry.request_id for entry in entries)
        assert max(ids.values()) == 1
        assert set(seen) <= set(ids)
        # The first one was not watched; at most one was booked that nobody saw.
        assert len(ids) - 1 - len(seen) in (0, 1)
        if not point.startswith("journal"):
            assert len(seen) == DIES_AT - 1
        spent: Counter[str] = Counter()
        for entry in entries:
            spent.update(dict.fromkeys(purse_keys(entry), entry.cost_nanos))
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT COUNT(*) FROM reservations").fetchone() == (0,)
        assert dict(connection.execute("SELECT key, spent_nanos FROM purses")) == dict(spent)
        connection.close()
        account_id = entries[0].account_id
        left = CREDIT - sum(entry.cost_nanos for entry in entries)
        assert spent[f"credit:{account_id}"] == CREDIT - left > 0
        assert (await verify(database)).differences == ()
    finally:
        await writer.close()
        await database.close()


@pytest.mark.parametrize("point", POINTS)
async def test_a_client_that_sends_everything_again_gets_it_all_and_pays_once(
    crashes: Path, point: str
) -> None:
    """Its calls have keys. Runs after the test above, over what the crash has left."""
    folder = crashes / point
    async with gateway(folder) as running:
        answers = [await ask(running, point, number) for number in range(REQUESTS)]
        assert [answer.status for answer in answers] == [200] * REQUESTS
        assert all(b"one two three" in text(answer) for answer in answers)
        ledger, account_id = running.services.ledger, running.account_id
        entries = entries_in(folder / "inferd.db")
        assert len(entries) == 1 + REQUESTS
        assert ledger.outstanding_nanos(account_id) == 0
        spent = sum(entry.cost_nanos for entry in entries)
        assert (await budget(running)) == CREDIT - spent
        assert (await verify(running.services.database)).differences == ()


def text(answer: Response) -> bytes:
    """What a plain or streamed answer says."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.body
    deltas = [choice["delta"] for event in answer.events() for choice in event["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas).encode()


async def budget(running: Gateway) -> int:
    """What is left of the credit, as a new request finds it."""
    await running.services.ledger.reserve(Payer(running.account_id, "tok"), "R", 0)
    running.services.ledger.release("R")
    left = running.services.ledger.balance_nanos(running.account_id)
    assert left is not None
    return left
