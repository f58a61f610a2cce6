"""An installation from before budgets: what was spent so far is in its purses."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from inferd.storage.database import migrate
from inferd.storage.ledger_statements import purse_keys
from tests.ledger import entries_in
from tests.unit.storage.test_upgrades import make


def test_what_was_spent_before_is_in_the_purses_and_credit_is_a_grant(tmp_path: Path) -> None:
    path = tmp_path / "inferd.db"
    make(path, "0004")
    migrate(path)
    spent: Counter[str] = Counter()
    for entry in entries_in(path):
        spent.update(dict.fromkeys(purse_keys(entry), entry.cost_nanos))
    with closing(sqlite3.connect(path)) as connection:
        assert dict(connection.execute("SELECT key, spent_nanos FROM purses")) == dict(spent)
        grants = connection.execute("SELECT account_id, nanos FROM grants").fetchall()
    assert grants == [("acc_2", 5_000)]
    months = {key.rpartition(":")[2] for key in spent if key.startswith("month:")}
    assert months == {"2026-09", "2026-10"}
