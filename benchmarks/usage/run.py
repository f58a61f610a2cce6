"""A month chart over ten million usage rows, on SQLite and on PostgreSQL.

`make bench-usage`. See README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
from sqlalchemy import text  # noqa: E402
from sqlalchemy.ext.asyncio import AsyncConnection  # noqa: E402
from tests.process import TOKEN, InferdProcess  # noqa: E402
from tests.servers import PostgresServer  # noqa: E402

from benchmarks.gateway.run import machine  # noqa: E402
from benchmarks.usage import fill  # noqa: E402
from inferd.metering.periods import Month  # noqa: E402
from inferd.metering.verify import verify  # noqa: E402
from inferd.storage import checks  # noqa: E402
from inferd.storage.database import Database, migrate  # noqa: E402
from inferd.storage.rows import EntryRow, Settle  # noqa: E402
from inferd.storage.writers import ledger_writer  # noqa: E402

ROWS = 10_000_000
CHUNK = 500_000
BY_WRITER = 20_000
"""Entries that the ledger's writer books one after the other, on top of the filled ones."""
REPEATS = 15
LIMIT_MS = 300
MONTH = Month(2026, 10)
CHARTS = {
    "day, one account (2 M rows)": "/v1/usage?month={month}&by=day&account=acc_0",
    "day, all accounts": "/v1/usage?month={month}&by=day&account=all",
    "month, all accounts": "/v1/usage?month={month}&by=month&account=all",
    "model, all accounts": "/v1/usage?month={month}&by=model&account=all",
    "token, all accounts": "/v1/usage?month={month}&by=token&account=all",
    "tag, one account": "/v1/usage?month={month}&by=tag&account=acc_0",
    "end user, one account": "/v1/usage?month={month}&by=end_user&account=acc_0",
    "token, all accounts, CSV": "/v1/usage?month={month}&by=token&account=all&format=csv",
    "payment usage, one account": "/payment/usage?from={month}&to={month}&account=acc_0",
    "invoice page, one account": "/payment/invoices/{month}?account=acc_0",
}


async def main() -> None:
    """Fill, verify, ask."""
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--only", choices=["sqlite", "postgresql"])
    options.add_argument("--every-entry", action="store_true", help="Recompute every cost, too.")
    asked = options.parse_args()
    results: dict[str, Any] = {"machine": machine(), "rows": asked.rows}
    if asked.only != "postgresql":
        results["sqlite"] = await on_sqlite(asked)
    if asked.only != "sqlite":
        results["postgresql"] = await on_postgres(asked)
    results["load_average_at_the_end"] = os.getloadavg()[0]
    if asked.rows == ROWS:
        name = f"{datetime.now(UTC):%Y-%m-%d}-{os.cpu_count()}-cores.json"
        target = Path(__file__).parent / "results" / name
        kept: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
        target.write_text(json.dumps(kept | results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


async def on_sqlite(asked: argparse.Namespace) -> dict[str, Any]:
    """In a file of its own, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="inferd-bench-"))
    try:
        return await measure(f"sqlite:///{folder / 'inferd.db'}", folder, asked)
    finally:
        shutil.rmtree(folder)


async def on_postgres(asked: argparse.Namespace) -> dict[str, Any]:
    """On a server of its own, removed afterwards."""
    folder, server = Path(tempfile.mkdtemp(prefix="inferd-bench-")), PostgresServer()
    try:
        server.start()
        return await measure(await server.fresh(), folder, asked)
    finally:
        server.close()
        shutil.rmtree(folder)


async def measure(url: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds to fill, what verification says, milliseconds of each chart."""
    migrate(url)
    database = Database(url, directory=folder)
    began = time.perf_counter()
    async with checks.unhurried(database) as connection:
        await _fill(connection, database.dialect, asked.rows)
    filled = time.perf_counter() - began
    writer_seconds = await _write(url, folder, asked.rows)
    found: dict[str, Any] = {
        "fill_seconds": round(filled, 1),
        "entries_a_second_through_the_writer": round(BY_WRITER / writer_seconds),
        "verified": await _verified(database, every_entry=asked.every_entry),
    }
    async with database.reading() as connection:
        for table in ("entries", "rollups", "end_user_rollups"):
            counted = await connection.execute(text(f"SELECT COUNT(*) FROM {table}"))
            found[f"{table}_rows"] = counted.scalar()
    await database.close()
    found["milliseconds"] = await _charts(url, folder)
    slowest = max(one["p50"] for one in found["milliseconds"].values())
    print(f"{url.partition(':')[0]}: slowest chart {slowest} ms at the median", file=sys.stderr)
    return found


async def _fill(connection: AsyncConnection, dialect: str, rows: int) -> None:
    start = MONTH.first_day * fill.DAY_NS
    if dialect == "sqlite":
        for pragma in ("cache_size = -1000000", "synchronous = OFF"):
            await connection.exec_driver_sql(f"PRAGMA {pragma}")
    for statement in fill.setup():
        await connection.exec_driver_sql(statement)
    for first in range(0, rows, CHUNK):
        count = min(CHUNK, rows - first)
        await connection.exec_driver_sql(fill.entries(dialect, first, count, rows, start))
        # SQLite's log would grow to the size of the whole.
        await connection.commit()
        print(f"{dialect}: {first + count:,} entries", file=sys.stderr)
    for statement in (*fill.purses(), *checks.rebuilding()):
        await connection.exec_driver_sql(statement.replace("{month}", str(MONTH)))
        await connection.commit()
        print(f"{dialect}: {statement[:40]}", file=sys.stderr)
    if dialect == "postgresql":
        # Production's autovacuum does it.
        await connection.exec_driver_sql("ANALYZE")
        await connection.commit()


async def _write(url: str, folder: Path, rows: int) -> float:
    """Book entries as the gateway does; they go into the same roll-ups."""
    writer = ledger_writer(url, folder)
    writer.start()
    await writer.recovered()
    start = MONTH.first_day * fill.DAY_NS
    began = time.perf_counter()
    for first in range(0, BY_WRITER, 500):
        numbers = range(rows + first, rows + first + 500)
        await asyncio.gather(*(writer.submit(Settle(_entry(n, start))) for n in numbers))
    seconds = time.perf_counter() - began
    await writer.close()
    return seconds


def _entry(number: int, start_unix_ns: int) -> EntryRow:
    at = start_unix_ns + number % 30 * fill.DAY_NS
    token = number % 1000
    model = token % fill.MODELS
    return EntryRow(
        request_id=f"R{number:023d}",
        account_id=f"acc_{token // fill.TOKENS_EACH}",
        token_id=f"tok_{token}",
        model=f"org/model-{model}",
        task="text-generation",
        dialect="openai",
        streamed=False,
        status="succeeded",
        stage="done",
        error_code=None,
        end_user=None,
        input_tokens=100,
        cached_tokens=0,
        output_tokens=10,
        estimated=False,
        price_id=1000 + model,
        cost_nanos=100 * fill.INPUT + 10 * fill.OUTPUT,
        created_unix_ns=at,
        settled_unix_ns=at,
        queue_ms=0,
        first_event_ms=None,
        runtime_ms=1,
    )


async def _verified(database: Database, *, every_entry: bool) -> dict[str, Any]:
    began = time.perf_counter()
    if every_entry:
        found = await verify(database)
        differences, shown = found.count, found.differences[:3]
    else:
        async with checks.snapshot(database) as connection:
            wrong = await checks.every(connection)
        differences, shown = len(wrong), tuple(wrong[:3])
    seconds = round(time.perf_counter() - began, 1)
    assert not differences, shown
    return {"every_entry": every_entry, "seconds": seconds, "differences": differences}


async def _charts(url: str, folder: Path) -> dict[str, dict[str, float]]:
    """Over HTTP, from a real server."""
    server = InferdProcess(folder, database_url=url)
    await server.start()
    found: dict[str, dict[str, float]] = {}
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            headers = {"authorization": f"Bearer {TOKEN}"}
            for name, path in CHARTS.items():
                asked = path.format(month=MONTH)
                times, sizes = list[float](), list[int]()
                for _ in range(REPEATS):
                    began = time.perf_counter()
                    answer = await client.get(asked, headers=headers)
                    times.append((time.perf_counter() - began) * 1000)
                    sizes.append(len(answer.content))
                    assert answer.status_code == 200, answer.text
                found[name] = {
                    "p50": round(statistics.median(times), 1),
                    "max": round(max(times), 1),
                    "bytes": sizes[0],
                }
    finally:
        await server.stop()
    return found


if __name__ == "__main__":
    asyncio.run(main())
