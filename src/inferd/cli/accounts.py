"""`inferd account`: who pays."""

from __future__ import annotations

import math
from typing import Annotated
from urllib.parse import quote

import msgspec
import typer
from rich.table import Table

from inferd.cli.calls import call
from inferd.cli.flags import Config, DataDir
from inferd.cli.tables import show_table
from inferd.errors import BadRequest
from inferd.settings import load

app = typer.Typer(no_args_is_help=True)
_AT = "/v1/admin/accounts"
_COLUMNS = ("uid", "display_name", "kind", "created_at", "credit", "suspended")


@app.command("create")
def create(
    name: str,
    personal: Annotated[bool, typer.Option("--personal", help="Not a team.")] = False,  # noqa: FBT002 a flag
    email: Annotated[str | None, typer.Option(help="Of its admin, who signs in with it.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make an account; prints its id and the secret of a token that manages it, once."""
    settings = load({"data_dir": data_dir}, config=config)
    kind = "personal" if personal else "team"
    told = call(settings, "POST", _AT, {"display_name": name, "kind": kind, "email": email})
    typer.echo(told["account"]["uid"])
    typer.echo(told["token"]["token"])


@app.command("list")
def list_accounts(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """All accounts."""
    settings = load({"data_dir": data_dir}, config=config)
    found = call(settings, "GET", _AT)["accounts"]
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    table = Table(box=None, pad_edge=False)
    for title in _COLUMNS:
        table.add_column(title)
    for row in found:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in _COLUMNS))
    show_table(table)


@app.command("suspend")
def suspend(uid: str, reason: str, data_dir: DataDir = None, config: Config = None) -> None:
    """Let an account spend nothing, with a reason for its people; effective within a second."""
    settings = load({"data_dir": data_dir}, config=config)
    call(settings, "POST", f"{_AT}/{uid}/suspend", {"reason": reason})
    typer.echo("Suspended.")


@app.command("unsuspend")
def unsuspend(uid: str, data_dir: DataDir = None, config: Config = None) -> None:
    """Let it spend again."""
    settings = load({"data_dir": data_dir}, config=config)
    call(settings, "POST", f"{_AT}/{uid}/unsuspend", {})
    typer.echo("It may spend again.")


@app.command("limit")
def limit(
    uid: str,
    usd: Annotated[
        str | None, typer.Argument(help="Dollars a month (UTC), or none; 0 blocks.")
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Limit what an account may spend in a month; it cannot lift that. Without USD: show it."""
    settings = load({"data_dir": data_dir}, config=config)
    path = f"/payment/config?account={quote(uid, safe='')}"
    if usd is None:
        found = call(settings, "GET", path)
    else:
        found = call(settings, "POST", path, {"limit": _dollars(usd)})
    told = {"admin's limit": "admin_limit", "own limit": "limit", "applies": "effective_limit"}
    for name, field in told.items():
        typer.echo(f"{name}: {'none' if found[field] < 0 else f'${found[field]:g}'}")


def _dollars(usd: str) -> float:
    """-1: none."""
    try:
        dollars = -1.0 if usd == "none" else float(usd)
    except ValueError:
        dollars = math.nan
    if usd != "none" and not 0 <= dollars < math.inf:
        raise BadRequest(f"{usd!r} is neither dollars nor none.")
    return dollars


@app.command("delete")
def delete(
    uid: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """End an account and its tokens for good; what it spent stays on record."""
    settings = load({"data_dir": data_dir}, config=config)
    if not yes:
        typer.confirm(f"Delete {uid} and all its tokens?", abort=True)
    call(settings, "DELETE", f"{_AT}/{uid}")
    typer.echo("Deleted.")
