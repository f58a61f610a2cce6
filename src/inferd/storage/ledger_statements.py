"""What the ledger's writers say to the database: plain SQL, the same for SQLite and PostgreSQL.

A group is one transaction: `of_write` for each write in turn, then `booked` for those settlements
whose entry was new. Placeholders are `?`; `numbered` turns them into PostgreSQL's `$1, $2 …`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from inferd.storage.rollup_statements import (
    ADD_ACCOUNT,
    ADD_END_USER,
    ADD_ROLLUP,
    account_rows,
    end_user_rows,
    rollup_rows,
)
from inferd.storage.rows import EntryRow, LedgerWrite, ReservationRow, Reserve, Settle

_ENTRY_COLUMNS = EntryRow.__struct_fields__
_RESERVATION_COLUMNS = ReservationRow.__struct_fields__
INSERT_ENTRY = (
    # Not OR IGNORE: that would also swallow a row that breaks a CHECK.
    f"INSERT INTO entries ({', '.join(_ENTRY_COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(_ENTRY_COLUMNS))}) ON CONFLICT (request_id) DO NOTHING"
)
"""One row is written, or none: then the request was settled before."""
INSERT_RESERVATION = (
    f"INSERT INTO reservations ({', '.join(_RESERVATION_COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(_RESERVATION_COLUMNS))}) ON CONFLICT (request_id) DO NOTHING"
)
DELETE_RESERVATION = "DELETE FROM reservations WHERE request_id = ?"
ADD_SPENT = (
    "INSERT INTO purses (key, spent_nanos) VALUES (?, ?) ON CONFLICT (key) "
    "DO UPDATE SET spent_nanos = purses.spent_nanos + excluded.spent_nanos"
)
TAKE_OFF_LEASE = (
    # A lease never goes below zero, so that no entry is refused for it.
    "UPDATE leases SET nanos = CASE WHEN nanos > ? THEN nanos - ? ELSE 0 END "
    "WHERE purse = ? AND gateway = ?"
)

LATE_NS = 30 * 60 * 1_000_000_000
"""An entry that the database gets so long after its month is over counts in the month that runs."""
_DAY_NS = 86_400_000_000_000


class Statement(NamedTuple):
    """One statement and its values."""

    sql: str
    values: tuple[Any, ...]


class Batch(NamedTuple):
    """One statement for many rows of values."""

    sql: str
    rows: Sequence[tuple[Any, ...]]


def of_write(write: LedgerWrite) -> Statement:
    """The first statement of a write; of a settlement it tells by its row count if it is new."""
    if isinstance(write, Settle):
        return Statement(INSERT_ENTRY, msgspec.structs.astuple(write.entry))
    if isinstance(write, Reserve):
        return Statement(INSERT_RESERVATION, msgspec.structs.astuple(write.reservation))
    return Statement(DELETE_RESERVATION, (write.request_id,))


def dated(writes: Sequence[LedgerWrite], now_unix_ns: int) -> list[LedgerWrite]:
    """What a journal held, with late entries settled now: an invoice that is final stays so."""
    before = month_of(now_unix_ns - LATE_NS)
    return [
        msgspec.structs.replace(
            write, entry=msgspec.structs.replace(write.entry, settled_unix_ns=now_unix_ns)
        )
        if isinstance(write, Settle) and month_of(write.entry.settled_unix_ns) < before
        else write
        for write in writes
    ]


def let_go(writes: Sequence[LedgerWrite]) -> Batch:
    """Drop the reservations of all settlements, new or not."""
    held = [(w.entry.request_id,) for w in writes if isinstance(w, Settle) and w.held]
    return Batch(DELETE_RESERVATION, held)


def booked(settles: Sequence[Settle]) -> list[Batch]:
    """What goes with new entries. Rows are in one order, so that two gateways never deadlock."""
    entries = [settle.entry for settle in settles]
    return [
        _spent(settles),
        _off_leases(settles),
        Batch(ADD_ROLLUP, rollup_rows(entries)),
        Batch(ADD_ACCOUNT, account_rows(entries)),
        Batch(ADD_END_USER, end_user_rows(entries)),
    ]


def _spent(settles: Sequence[Settle]) -> Batch:
    spent: Counter[str] = Counter()
    for settle in settles:
        if settle.entry.cost_nanos:
            for key in purse_keys(settle.entry):
                spent[key] += settle.entry.cost_nanos
    return Batch(ADD_SPENT, sorted(spent.items()))


def _off_leases(settles: Sequence[Settle]) -> Batch:
    paid: Counter[tuple[str, str]] = Counter()
    for settle in settles:
        for purse, nanos in settle.leases:
            paid[purse, settle.gateway] += nanos
    rows = [(nanos, nanos, purse, gateway) for (purse, gateway), nanos in sorted(paid.items())]
    return Batch(TAKE_OFF_LEASE, rows)


def purse_keys(entry: EntryRow) -> tuple[str, ...]:
    """The purses that an entry is paid from: its account's, its month's, its token's, its JWT's.

    The month is that of the admission: what was reserved in November is spent there, however long
    it ran.
    """
    return keys_of(entry.account_id, entry.token_id, entry.jwt_id, month_of(entry.created_unix_ns))


def keys_of(account_id: str, token_id: str, jwt_id: str | None, month: str) -> tuple[str, ...]:
    """The keys of a payer's purses."""
    keys = (f"credit:{account_id}", f"month:{account_id}:{month}", f"token:{token_id}:{month}")
    return keys if jwt_id is None else (*keys, f"jwt:{jwt_id}")


def month_of(unix_ns: int) -> str:
    """The month of UTC: `2026-11`."""
    return _month_of_day(unix_ns // _DAY_NS)


@lru_cache(maxsize=1024)
def _month_of_day(day: int) -> str:
    return datetime.fromtimestamp(day * 86400, UTC).strftime("%Y-%m")


@lru_cache(maxsize=64)
def numbered(sql: str) -> str:
    """The statement with PostgreSQL's placeholders."""
    head, *rest = sql.split("?")
    return head + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
