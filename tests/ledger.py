"""Reads the ledger as it lies in the database."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from inferd.storage import entries as stored
from inferd.storage.rows import EntryRow
from tests.gateway import Gateway


def entries_in(path: Path) -> list[EntryRow]:
    """All settled entries of a database file, oldest first."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM entries ORDER BY rowid").fetchall()
    finally:
        connection.close()
    names = EntryRow.__struct_fields__
    return [
        msgspec.convert({name: row[name] for name in names}, EntryRow, strict=False) for row in rows
    ]


async def entries(gate: Gateway) -> list[EntryRow]:
    """All settled entries of a gateway, oldest first."""
    database = gate.services.database
    if database.dialect == "sqlite":
        return entries_in(gate.database_path)
    async with database.reading() as connection:
        rows = [row async for row in stored.every(connection)]
    return sorted(rows, key=lambda row: row.settled_unix_ns)
