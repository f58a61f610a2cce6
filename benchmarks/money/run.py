"""What exact money costs: reservations, group commit, budgets that four gateways share.

`make bench-money`. Each row is a process of its own over a fresh database. See README.md.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.gateway import echo_card  # noqa: E402
from tests.process import serving  # noqa: E402
from tests.servers import PostgresServer  # noqa: E402

from benchmarks.gateway.load import Target, closed_loop  # noqa: E402
from benchmarks.gateway.run import machine  # noqa: E402
from benchmarks.gateway.upstream import MODEL  # noqa: E402
from inferd.clock import SystemClock  # noqa: E402
from inferd.errors import PaymentRequired  # noqa: E402
from inferd.metering.ledger import Ledger  # noqa: E402
from inferd.metering.payer import Payer  # noqa: E402
from inferd.storage.database import Database, migrate  # noqa: E402
from inferd.storage.database_url import is_postgres  # noqa: E402
from inferd.storage.rows import EntryRow  # noqa: E402
from inferd.storage.writers import ledger_writer  # noqa: E402

CLIENTS = 64
REQUESTS = 8_000
HTTP_CLIENTS = 32
HTTP_REQUESTS = 3_000
ROUNDS = 3
COST = 1_000
PAYER = Payer("acc", "tok")
_FILL = [
    "INSERT INTO accounts (id, name, created_unix_ns) VALUES ('acc', 'acc', 1)",
    "INSERT INTO tokens (id, account_id, name, digest, fragment, scopes, created_unix_ns) "
    "VALUES ('tok', 'acc', 'tok', 'tok', '', '', 1)",
    "INSERT INTO prices (id, model, input_rate, cached_rate, output_rate, valid_from_unix_ns) "
    "VALUES (1, 'a/b', 1, 1, 1, 0)",
]


class Play(msgspec.Struct):
    """What one gateway process does."""

    url: str
    folder: str
    gateway: str
    requests: int
    serial: int
    """Tells its request ids from those of the other gateways."""


class Played(msgspec.Struct):
    """What came of it."""

    seconds: float
    cpu_seconds: float
    booked: int
    refused: int
    p50_ms: float
    p99_ms: float


class SafePostgres(PostgresServer):
    """As it is installed: a commit is on the disk."""

    def command(self) -> list[str]:
        """Like the tests' server, with fsync."""
        return [part.replace("fsync=off", "fsync=on") for part in super().command()]


def _entry(number: int, now: int) -> EntryRow:
    return EntryRow(
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
        input_tokens=30,
        cached_tokens=0,
        output_tokens=8,
        estimated=False,
        price_id=1,
        cost_nanos=COST,
        created_unix_ns=now,
        settled_unix_ns=now,
        queue_ms=0,
        first_event_ms=1,
        runtime_ms=4,
    )


async def play(wish: Play) -> Played:
    """Reserve and settle, as fast as it goes, from many clients at once."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        database = Database(wish.url, directory=Path(wish.folder))
        stack.push_async_callback(database.close)
        writer = ledger_writer(wish.url, Path(wish.folder))
        stack.push_async_callback(writer.close)
        ledger = Ledger(writer, database, clock, wish.gateway)
        await ledger.start()
        stack.push_async_callback(ledger.close)
        latencies: list[float] = []
        numbers = iter(range(wish.serial, wish.serial + wish.requests))
        refused = 0

        async def client() -> None:
            nonlocal refused
            for number in numbers:
                now = clock.unix_ns()
                row = _entry(number, now)
                try:
                    await ledger.reserve(PAYER, row.request_id, 2 * COST, at_unix_ns=now)
                except PaymentRequired:
                    refused += 1
                    continue
                began = time.perf_counter()
                await ledger.settle(row)
                latencies.append(time.perf_counter() - began)

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    latencies.sort()
    p50, p99 = (1000 * latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.99))
    return Played(seconds, cpu, len(latencies), refused, p50, p99)


async def _fill(url: str, limits: dict[str, int]) -> None:
    from sqlalchemy import text

    database = Database(url, directory=Path("/tmp"))
    async with database.writing() as connection:
        for statement in _FILL:
            await connection.execute(text(statement))
        if limits:
            await connection.execute(
                text("UPDATE accounts SET credit_nanos = :c, monthly_limit_nanos = :m"),
                {"c": limits["credit"], "m": limits["credit"]},
            )
            await connection.execute(
                text("UPDATE tokens SET monthly_limit_nanos = :m"), {"m": limits["credit"]}
            )
    await database.close()


async def _row(url: str, folder: Path, gateways: int, credit: int | None) -> list[Played]:
    await _fill(url, {} if credit is None else {"credit": credit})
    children: list[asyncio.subprocess.Process] = []
    for number in range(gateways):
        own = folder / f"g{number}"
        own.mkdir(parents=True)
        name = f"g{number}" if is_postgres(url) else ""
        wish = Play(url, str(own), name, REQUESTS // gateways, number * REQUESTS)
        command = [
            sys.executable,
            str(Path(__file__)),
            "--play",
            msgspec.json.encode(wish).decode(),
        ]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        children.append(child)
    told = await asyncio.gather(*(child.communicate() for child in children))
    return [msgspec.json.decode(out, type=Played) for out, _ in told]


def _summed(name: str, played: list[Played]) -> dict[str, Any]:
    seconds = max(one.seconds for one in played)
    booked = sum(one.booked for one in played)
    cpu = sum(one.cpu_seconds for one in played)
    return {
        "row": name,
        "requests_per_second": round(booked / seconds),
        "cpu_us_per_request": round(1e6 * cpu / booked, 1),
        "commit_p50_ms": round(sum(one.p50_ms for one in played) / len(played), 2),
        "commit_p99_ms": round(max(one.p99_ms for one in played), 2),
        "booked": booked,
        "refused": sum(one.refused for one in played),
    }


async def ledgers(postgres: PostgresServer) -> list[dict[str, Any]]:
    """The ledger alone: SQLite, PostgreSQL, four gateways."""
    plenty, scarce = 10**15, COST * REQUESTS // 2
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, kind, gateways, credit) in enumerate(
            [
                ("SQLite, no budget", "sqlite", 1, None),
                ("SQLite, three budgets", "sqlite", 1, plenty),
                ("PostgreSQL, no budget", "postgres", 1, None),
                ("PostgreSQL, three budgets", "postgres", 1, plenty),
                ("PostgreSQL, three budgets, 4 gateways", "postgres", 4, plenty),
                ("the same, money for half of the requests", "postgres", 4, scarce),
            ]
        ):
            own = Path(folder) / str(number)
            own.mkdir()
            if kind == "sqlite":
                url = f"sqlite:///{own / 'inferd.db'}"
                await asyncio.to_thread(migrate, url)
            else:
                url = await postgres.migrated()
            rows.append(_summed(name, await _row(url, own, gateways, credit)))
            print(json.dumps(rows[-1]), flush=True)
    return rows


async def over_http() -> list[dict[str, Any]]:
    """A whole gateway with the echo engine: the same token with and without budgets, in turns."""
    rounds: dict[str, list[float]] = {"no budget": [], "three budgets": []}
    with tempfile.TemporaryDirectory() as folder:
        card = echo_card(MODEL, slots=HTTP_CLIENTS)
        async with serving(Path(folder), card) as server, server.client() as client:
            port = int(server.url.rsplit(":", 1)[1])
            made = (await client.post("/v1/api-tokens", json={"name": "bench"})).json()
            target = Target("inferd", port, made["token"])
            raw = target.request(stream=False, max_tokens=4)
            await closed_loop(target, raw, clients=HTTP_CLIENTS, requests=500)
            for _ in range(ROUNDS):
                for name, limit in (("no budget", -1.0), ("three budgets", 100_000.0)):
                    await client.post("/payment/config", json={"limit": limit})
                    key = {"token_id": made["token_id"], "limit": limit}
                    await client.post("/payment/key-limits", json=key)
                    done = await closed_loop(
                        target, raw, clients=HTTP_CLIENTS, requests=HTTP_REQUESTS
                    )
                    rounds[name].append(HTTP_REQUESTS / done.seconds)
    return [
        {"row": f"HTTP, echo engine, {name}", "requests_per_second": round(max(found))}
        for name, found in rounds.items()
    ]


def main() -> None:
    """Play one gateway, or all rows."""
    if sys.argv[1:2] == ["--play"]:
        wish = msgspec.json.decode(sys.argv[2], type=Play)
        print(msgspec.json.encode(uvloop.run(play(wish))).decode())
        return
    postgres = SafePostgres()
    try:
        postgres.start()
        rows = uvloop.run(ledgers(postgres))
    finally:
        postgres.close()
    rows += uvloop.run(over_http())
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    result = {"date": now, "machine": machine(), "rows": rows}
    path = Path(__file__).parent / "results" / f"{now}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
