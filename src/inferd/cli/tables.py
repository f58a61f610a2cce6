"""Tables in the terminal, and whole lines where there is none."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

WIDTH_PIPED = 200


def show_table(table: Table) -> None:
    """Print; nothing is cut when the output is piped."""
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH_PIPED)).print(table)
