"""`inferd usage`: what was used and what it cost; `inferd usage verify`: is the ledger right."""

from __future__ import annotations

import sys
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer
from rich.table import Table

from inferd.cli.calls import call
from inferd.cli.flags import Config, DataDir
from inferd.cli.tables import show_table
from inferd.money import usd_text
from inferd.settings import load

app = typer.Typer(invoke_without_command=True)

By = Annotated[str, typer.Option(help="model, token, day, month, tag, tier, end_user or account.")]
Month = Annotated[str | None, typer.Option(help="YYYY-MM, UTC. Default: the last 31 days.")]
Only = Annotated[str | None, typer.Option(help="Only this one.")]
_SHOWN = ("requests", "input_tokens", "cached_tokens", "output_tokens")
ROWS_MAX = 100_000


@app.callback(invoke_without_command=True)
def usage(  # noqa: PLR0913 what to sum, of what, and how to show it
    context: typer.Context,
    by: By = "model",
    month: Month = None,
    account: Annotated[str, typer.Option(help="An account's id; all: every account.")] = "all",
    model: Only = None,
    token: Annotated[str | None, typer.Option(help="Only this token, by id.")] = None,
    tag: Only = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,  # noqa: FBT002 a flag
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Sums of usage and cost, of all accounts of this installation."""
    context.obj = (data_dir, config)
    if context.invoked_subcommand is not None:
        return
    settings = load({"data_dir": data_dir}, config=config)
    asked = {
        "by": by,
        "account": account,
        "limit": ROWS_MAX,
        "month": month,
        "model": model,
        "token": token,
        "tag": tag,
    }
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    report = call(settings, "GET", f"/v1/usage?{query}")
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    elif as_csv:
        _write_csv(by, report["rows"])
    else:
        _show(by, report)


def _write_csv(by: str, rows: list[dict[str, Any]]) -> None:
    from inferd.api.manage.usage import UsageRow, usage_csv

    sys.stdout.buffer.write(usage_csv(by, msgspec.convert(rows, list[UsageRow], strict=False)))


def _show(by: str, report: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in (by, "requests", "input", "of it cached", "output", "cost"):
        table.add_column(title, justify="left" if title == by else "right")
    for row in report["rows"]:
        counts = (str(row[name]) for name in _SHOWN)
        table.add_row(row["name"] or "-", *counts, usd_text(row["cost_nanos"]))
    show_table(table)
    if report["truncated"]:
        typer.echo("There are more rows.")
    typer.echo(f"total {usd_text(report['total_cost_nanos'])}")


@app.command("verify")
def verify(context: typer.Context, data_dir: DataDir = None, config: Config = None) -> None:
    """Recompute every entry and every sum; exit code 1 if anything differs."""
    above: tuple[str | None, str | None] = context.obj
    settings = load({"data_dir": data_dir or above[0]}, config=config or above[1])
    found = call(settings, "POST", "/v1/usage/verify", {})
    for difference in found["differences"]:
        typer.echo(difference)
    if found["count"]:
        typer.echo(f"{found['count']} differences.")
        raise typer.Exit(1)
    typer.echo(f"{found['entries']} entries, all right.")
