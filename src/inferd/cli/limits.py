"""`inferd limits`: how much accounts, tokens and models may do."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.cli.server_client import ServerClient
from inferd.cli.tables import show_table
from inferd.settings import Settings, load

app = typer.Typer(no_args_is_help=True)
_NAMES = ("account_id", "token_id", "model")
_BOUNDS = ("concurrent_requests", "requests_per_minute", "tokens_per_minute")
_EVERY = "'*': each on its own. Absent: all together."


@app.command("set")
def set_limit(  # noqa: PLR0913 three names, three bounds, and where
    account: Annotated[str | None, typer.Option(help=f"Account id. {_EVERY}")] = None,
    token: Annotated[str | None, typer.Option(help=f"Token id. {_EVERY}")] = None,
    model: Annotated[str | None, typer.Option(help=f"Model. {_EVERY}")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Requests in flight.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests per minute.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens per minute.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Set the limit of these names; without any bound it is removed. Effective within a second."""
    settings = load({"data_dir": data_dir}, config=config)
    values = (account, token, model, concurrent, requests, tokens)
    body = dict(zip((*_NAMES, *_BOUNDS), values, strict=True))
    told = _call(settings, "PUT", "/v1/admin/limits", body)
    removed = all(told[name] is None for name in _BOUNDS)
    typer.echo("Removed." if removed else "Set.")


@app.command("list")
def list_limits(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """All limits that were set; the default is the setting concurrent_requests_max."""
    settings = load({"data_dir": data_dir}, config=config)
    found = _call(settings, "GET", "/v1/admin/limits")["limits"]
    _show(found, (*_NAMES, *_BOUNDS), as_json=as_json)


@app.command("requests")
def list_requests(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """What accounts ask for and nobody has answered."""
    settings = load({"data_dir": data_dir}, config=config)
    found = _call(settings, "GET", "/v1/admin/limit-requests?status=pending")["requests"]
    columns = ("id", "account_id", "rate_limit", "tpm_rate_limit", "reason", "created_at")
    _show(found, columns, as_json=as_json)


@app.command("grant")
def grant(
    request_id: str,
    answer: Annotated[str | None, typer.Option(help="A word to whoever asked.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Set the limits that were asked for."""
    _resolve(load({"data_dir": data_dir}, config=config), request_id, answer, granted=True)


@app.command("reject")
def reject(
    request_id: str,
    answer: Annotated[str | None, typer.Option(help="A word to whoever asked.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Leave the limits as they are."""
    _resolve(load({"data_dir": data_dir}, config=config), request_id, answer, granted=False)


def _resolve(settings: Settings, request_id: str, answer: str | None, *, granted: bool) -> None:
    path = f"/v1/admin/limit-requests/{request_id}"
    told = _call(settings, "POST", path, {"grant": granted, "answer": answer})
    typer.echo(f"{told['status'].capitalize()}.")


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(rows).decode())
        return
    table = Table(box=None, pad_edge=False)
    for title in columns:
        table.add_column(title)
    for row in rows:
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in columns))
    show_table(table)


def _call(settings: Settings, method: str, path: str, body: object = None) -> Any:
    server = data_dir.running_server(settings)
    if server is not None:
        return ServerClient(server).call(method, path, body)
    from inferd.cli.offline import call

    return call(settings, method, path, body)
