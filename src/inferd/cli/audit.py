"""`inferd audit`: who did what."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer
from rich.table import Table

from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.cli.server_client import ServerClient
from inferd.cli.tables import show_table
from inferd.settings import Settings, load


def audit(
    limit: Annotated[int, typer.Option(help="How many rows, at most 1000.")] = 50,
    before: Annotated[str | None, typer.Option(help="Rows older than this id.")] = None,
    action: Annotated[str | None, typer.Option(help="Such as token.revoke.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """The newest first."""
    settings = load({"data_dir": data_dir}, config=config)
    asked = {"limit": limit, "before": before, "action": action}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    page = _page(settings, f"/v1/admin/audit?{query}")
    if as_json:
        typer.echo(msgspec.json.encode(page).decode())
        return
    table = Table(box=None, pad_edge=False)
    for title in ("at", "who", "from", "action", "target", "id"):
        table.add_column(title)
    for row in page["rows"]:
        who = row["person_id"] or row["token_name"]
        table.add_row(
            row["at"], who, row["address"] or "-", row["action"], row["target"], row["id"]
        )
    show_table(table)


def _page(settings: Settings, path: str) -> Any:
    server = data_dir.running_server(settings)
    if server is not None:
        return ServerClient(server).call("GET", path)
    from inferd.cli.offline import call

    return call(settings, "GET", path)
