"""`inferd usage`: what was used and what it cost; `inferd usage verify`: is the ledger right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.cli.server_client import ServerClient
from inferd.cli.tables import show_table
from inferd.errors import BadRequest
from inferd.money import usd_text
from inferd.settings import Settings, load

app = typer.Typer(invoke_without_command=True)

By = Annotated[str, typer.Option(help="model, token, day, month or end_user.")]
Month = Annotated[str | None, typer.Option(help="YYYY-MM, UTC. Default: the last 31 days.")]


@app.callback(invoke_without_command=True)
def usage(
    context: typer.Context,
    by: By = "model",
    month: Month = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Sums by model, token, day, month or end user."""
    flags = {"data_dir": data_dir}
    context.obj = (data_dir, config)
    if context.invoked_subcommand is not None:
        return
    settings = load(flags, config=config)
    query = f"/v1/usage?by={by}" + (_span(month) if month else "")
    report = _report(settings, query)
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
        return
    table = Table(box=None, pad_edge=False)
    for title in (by, "requests", "input", "of it cached", "output", "cost"):
        table.add_column(title, justify="left" if title == by else "right")
    for row in report["rows"]:
        counts = (
            row[name] for name in ("requests", "input_tokens", "cached_tokens", "output_tokens")
        )
        table.add_row(row["key"] or "-", *map(str, counts), usd_text(row["cost_nanos"]))
    show_table(table)
    typer.echo(f"total {usd_text(report['total_cost_nanos'])}")


def _span(month: str) -> str:
    try:
        first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    except ValueError:
        raise BadRequest(f"{month!r} is not a month of the form YYYY-MM.") from None
    return f"&from={int(first.timestamp())}&to={int(after.timestamp())}"


def _report(settings: Settings, query: str) -> Any:
    server = data_dir.running_server(settings)
    if server is not None:
        return ServerClient(server).call("GET", query)
    from inferd.cli.offline import call

    return call(settings, "GET", query)


@app.command("verify")
def verify(context: typer.Context, data_dir: DataDir = None, config: Config = None) -> None:
    """Recompute every entry; exit code 1 if anything differs."""
    above: tuple[str | None, str | None] = context.obj
    settings = load({"data_dir": data_dir or above[0]}, config=config or above[1])
    found = _verification(settings)
    for difference in found["differences"]:
        typer.echo(difference)
    if found["differences"]:
        raise typer.Exit(1)
    typer.echo(f"{found['entries']} entries, all right.")


def _verification(settings: Settings) -> Any:
    server = data_dir.running_server(settings)
    if server is not None:
        return ServerClient(server).call("POST", "/v1/usage/verify", {})
    from inferd.cli.offline import call

    return call(settings, "POST", "/v1/usage/verify", {})
