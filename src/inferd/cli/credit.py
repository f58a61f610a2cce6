"""`inferd account credit`: what an account may spend."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from inferd.cli.calls import call
from inferd.cli.flags import Config, DataDir
from inferd.cli.tables import show_table
from inferd.settings import load


def credit(
    uid: str,
    usd: Annotated[
        str | None, typer.Argument(help="Dollars to grant; with a minus: taken back (after --).")
    ] = None,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    grant_id: Annotated[
        str | None, typer.Option("--id", help="Your name for it: twice grants once.")
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Grant credit to an account, which makes it prepaid; without an amount: show its credit."""
    settings = load({"data_dir": data_dir}, config=config)
    path = f"/v1/admin/accounts/{quote(uid, safe='')}/credit"
    if usd is None:
        found = call(settings, "GET", path)
        table = Table(box=None, pad_edge=False)
        for title in ("at", "usd", "note", "by"):
            table.add_column(title, overflow="fold")
        for one in found["grants"]:
            table.add_row(one["at"], one["usd"], one["note"], one["granted_by"] or "-")
        show_table(table)
    else:
        found = call(settings, "POST", path, {"usd": usd, "note": note, "id": grant_id})
    if found["balance_usd"] is None:
        typer.echo(f"spent ${found['spent_usd']}, not prepaid")
    else:
        typer.echo(f"spent ${found['spent_usd']}, balance ${found['balance_usd']}")
