"""What new entries add to the sums of their day: plain SQL and rows, for both of the writers.

A group of entries is summed here first, so that a busy day's row is written once for each commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from inferd.storage.rows import EntryRow
from inferd.storage.tables_usage import SUMS, account_rollups, end_user_rollups, rollups

DAY_NS = 86_400_000_000_000

_Key = tuple[Any, ...]


def _adding(table: str, key: list[str]) -> str:
    columns = [*key, *SUMS]
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in SUMS)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sums}"
    )


ADD_ROLLUP = _adding("rollups", [column.name for column in rollups.primary_key])
ADD_END_USER = _adding("end_user_rollups", [column.name for column in end_user_rollups.primary_key])


ADD_ACCOUNT = _adding("account_rollups", [column.name for column in account_rollups.primary_key])


def day_of(unix_ns: int) -> int:
    """Whole days since 1970, UTC."""
    return unix_ns // DAY_NS


def rollup_rows(entries: Iterable[EntryRow]) -> list[tuple[Any, ...]]:
    """Values of ADD_ROLLUP, in the order of their keys: two gateways never deadlock."""
    return _summed(entries, _rollup_key)


def account_rows(entries: Iterable[EntryRow]) -> list[tuple[Any, ...]]:
    """Values of ADD_ACCOUNT."""
    return _summed(entries, _account_key)


def end_user_rows(entries: Iterable[EntryRow]) -> list[tuple[Any, ...]]:
    """Values of ADD_END_USER, of those entries that name one."""
    return _summed((entry for entry in entries if entry.end_user is not None), _end_user_key)


def _rollup_key(entry: EntryRow) -> _Key:
    return (
        day_of(entry.settled_unix_ns),
        entry.account_id,
        entry.token_id,
        entry.model,
        entry.tier,
        entry.unit or "",
        entry.price_id,
        entry.tag or "",
    )


def _end_user_key(entry: EntryRow) -> _Key:
    day = day_of(entry.settled_unix_ns)
    return (day, entry.account_id, entry.token_id, entry.end_user, entry.unit or "")


def _account_key(entry: EntryRow) -> _Key:
    day = day_of(entry.settled_unix_ns)
    return (day, entry.account_id, entry.model, entry.unit or "")


def _summed(entries: Iterable[EntryRow], key_of: Callable[[EntryRow], _Key]) -> list[_Key]:
    sums: dict[_Key, list[int]] = {}
    for entry in entries:
        one = (
            1,
            entry.input_tokens,
            entry.cached_tokens,
            entry.output_tokens,
            entry.quantity,
            entry.cost_nanos,
        )
        found = sums.setdefault(key_of(entry), [0] * len(SUMS))
        for index, value in enumerate(one):
            found[index] += value
    return [(*key, *values) for key, values in sorted(sums.items())]
