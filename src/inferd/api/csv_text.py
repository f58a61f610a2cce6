"""Tables as CSV (RFC 4180), safe to open: no cell of a caller's becomes a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

Cell = str | int | float | bool | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\N{FULLWIDTH EQUALS SIGN}")
KIND = (b"content-type", b"text/csv; charset=utf-8; header=present")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """A table with a line of names."""
    told = io.StringIO(newline="")
    writer = csv.writer(told)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_safe(cell) if isinstance(cell, str) else cell for cell in row])
    return told.getvalue().encode("utf-8", "replace")


def attachment(name: str) -> tuple[bytes, bytes]:
    """The header that lets a browser save it under a plain name."""
    return (b"content-disposition", f'attachment; filename="{name}"'.encode())


def _safe(cell: str) -> str:
    # Spreadsheets compute what begins like a formula; an apostrophe makes it text.
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
