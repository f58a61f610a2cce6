"""`inferd gateways`: which share the database, and giving up one that will not come back."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import typer
from rich.table import Table

from inferd.cli.calls import call
from inferd.cli.flags import Config, DataDir
from inferd.cli.tables import show_table
from inferd.settings import load

app = typer.Typer(no_args_is_help=True)
_PATH = "/v1/admin/gateways"


@app.command("list")
def list_gateways(data_dir: DataDir = None, config: Config = None) -> None:
    """Gateways, when they were seen, and what waits for them."""
    _show(call(load({"data_dir": data_dir}, config=config), "GET", _PATH))


@app.command("forget")
def forget(name: str, data_dir: DataDir = None, config: Config = None) -> None:
    """Give up a gateway whose machine is lost: its leases are free, its films fail.

    What only its own journal knew of is lost with it.
    """
    settings = load({"data_dir": data_dir}, config=config)
    _show(call(settings, "DELETE", f"{_PATH}/{quote(name)}"))


def _show(answer: Any) -> None:
    table = Table("gateway", "seen", "leased", "films", "")
    for one in answer["gateways"]:
        films, state = str(one["unfinished_videos"]), "lost" if one["lost"] else ""
        table.add_row(one["name"], one["seen_at"], one["leased"], films, state)
    show_table(table)
