"""The sums of a day are the sums of its entries, however often an entry comes."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd.errors import EngineFailed
from inferd.metering.report import Grouping, usage_report
from inferd.storage.database import Database
from inferd.storage.journal import Journal
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.rollup_statements import DAY_NS
from inferd.storage.rollups import Slice, View
from inferd.storage.rows import EntryRow, Settle
from tests.unit.storage.test_ledger_writer import entry, make_database

ALL = Slice(View(None), 0, 40_000)
SUMMED = (
    "SELECT settled_unix_ns / 86400000000000, account_id, token_id, model, tier, "
    "COALESCE(unit, ''), price_id, COALESCE(tag, ''), COUNT(*), SUM(input_tokens), "
    "SUM(cached_tokens), SUM(output_tokens), SUM(quantity), SUM(cost_nanos) "
    "FROM entries GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8"
)
NAMED = (
    "SELECT settled_unix_ns / 86400000000000, account_id, token_id, end_user, "
    "COALESCE(unit, ''), COUNT(*), SUM(input_tokens), SUM(cached_tokens), SUM(output_tokens), "
    "SUM(quantity), SUM(cost_nanos) FROM entries WHERE end_user IS NOT NULL "
    "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
)

COARSE = (
    "SELECT settled_unix_ns / 86400000000000, account_id, model, COALESCE(unit, ''), COUNT(*), "
    "SUM(input_tokens), SUM(cached_tokens), SUM(output_tokens), SUM(quantity), SUM(cost_nanos) "
    "FROM entries GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
)
TABLES = (
    ("rollups", SUMMED, 8),
    ("account_rollups", COARSE, 4),
    ("end_user_rollups", NAMED, 5),
)


def assert_sums_are_right(path: Path) -> None:
    connection = sqlite3.connect(path)
    for table, query, keys in TABLES:
        order = ", ".join(str(number) for number in range(1, keys + 1))
        kept = connection.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
        assert kept == connection.execute(query).fetchall()
    connection.close()


entries = st.builds(
    entry,
    st.integers(0, 12),
    account_id=st.sampled_from(["a", "b"]),
    token_id=st.sampled_from(["t", "u"]),
    tier=st.sampled_from(["default", "flex"]),
    unit=st.sampled_from([None, "image_units"]),
    tag=st.sampled_from([None, "", "shop"]),
    end_user=st.sampled_from([None, "", "ann"]),
    settled_unix_ns=st.sampled_from([0, DAY_NS - 1, DAY_NS, 20_000 * DAY_NS]),
    input_tokens=st.integers(1, 10**9),
    quantity=st.integers(0, 10**12),
    cost_nanos=st.integers(0, 10**12),
)


@given(st.lists(st.lists(entries, max_size=6), max_size=4))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_groups_with_any_repetitions_sum_up(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[EntryRow]]
) -> None:
    path = tmp_path_factory.mktemp("sums") / "inferd.db"
    make_database(path)

    async def write() -> None:
        writer = LedgerWriter(path)
        writer.start()
        for group in groups:
            await asyncio.gather(*(writer.submit(Settle(row)) for row in group))
        await writer.close()

    asyncio.run(write())
    assert_sums_are_right(path)


async def test_a_replayed_journal_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "inferd.db"
    make_database(path)
    for _ in range(2):
        Journal(tmp_path / "ledger.journal").append([Settle(entry(n)) for n in (1, 2, 1)])
        writer = LedgerWriter(path)
        writer.start()
        await writer.submit(Settle(entry(2)))
        await writer.close()
    assert_sums_are_right(path)
    found = await report_of(path, "model")
    assert found.total.requests == 2


async def test_a_refused_entry_is_not_summed(tmp_path: Path) -> None:
    path = tmp_path / "inferd.db"
    make_database(path)
    writer = LedgerWriter(path)
    writer.start()
    good, bad = writer.submit(Settle(entry(1))), writer.submit(Settle(entry(2, cost_nanos=-1)))
    with pytest.raises(EngineFailed):
        await bad
    await good
    await writer.close()
    assert_sums_are_right(path)


async def report_of(path: Path, by: Grouping, part: Slice = ALL, limit: int = 100):  # noqa: ANN201
    database = Database(path)
    found = await usage_report(database, by, part, limit)
    await database.close()
    return found


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    path = tmp_path / "inferd.db"
    make_database(path)
    writer = LedgerWriter(path)
    writer.start()
    day = 20_453
    rows = [
        entry(1, settled_unix_ns=day * DAY_NS, end_user="ann", cost_nanos=5, tag="shop"),
        entry(2, settled_unix_ns=(day + 1) * DAY_NS, end_user="bob", cost_nanos=9),
        entry(3, settled_unix_ns=(day + 40) * DAY_NS, cost_nanos=2, token_id="other"),
        entry(4, settled_unix_ns=day * DAY_NS, cost_nanos=3, account_id="strange"),
    ]
    await asyncio.gather(*(writer.submit(Settle(row)) for row in rows))
    await writer.close()
    return path


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("day", ["2025-12-31", "2026-01-01", "2026-02-09"]),
        ("month", ["2025-12", "2026-01", "2026-02"]),
        ("token", ["tok", "other"]),
        ("tag", ["", "shop"]),
        ("end_user", ["bob", "ann", ""]),
        ("account", ["acc"]),
    ],
)
async def test_groups_of_an_account(filled: Path, by: Grouping, keys: list[str]) -> None:
    found = await report_of(filled, by, Slice(View("acc"), 0, 40_000))
    assert [row.key for row in found.rows] == keys
    assert sum(row.cost_nanos for row in found.rows) == found.total.cost_nanos == 16


async def test_a_slice_holds_whole_days_and_its_filters(filled: Path) -> None:
    days = await report_of(filled, "day", Slice(View("acc"), 20_453, 20_454))
    assert [row.cost_nanos for row in days.rows] == [5]
    tagged = await report_of(filled, "model", Slice(View("acc"), 0, 40_000, tag="shop"))
    assert tagged.total.requests == 1
    own = await report_of(filled, "model", Slice(View("acc", token_id="other"), 0, 40_000))
    assert own.total.cost_nanos == 2


async def test_what_is_over_the_limit_is_said_and_in_the_total(filled: Path) -> None:
    found = await report_of(filled, "token", limit=1)
    assert ([row.key for row in found.rows], found.truncated) == (["tok"], True)
    assert found.total.cost_nanos == 19
