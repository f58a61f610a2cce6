"""`inferd prices`: what models cost, what they will cost, what they did cost."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer
from rich.table import Table

from inferd.catalog.card_price import UNITS
from inferd.cli.calls import call
from inferd.cli.flags import Config, DataDir
from inferd.cli.tables import show_table
from inferd.errors import BadRequest
from inferd.settings import load

app = typer.Typer(no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
_PATH = "/v1/admin/prices"
_TOKENS = ("input", "cached", "output")


@app.command("list")
def list_prices(as_json: Json = False, data_dir: DataDir = None, config: Config = None) -> None:  # noqa: FBT002 a flag
    """What applies now and what is planned."""
    settings = load({"data_dir": data_dir}, config=config)
    _show(call(settings, "GET", _PATH)["prices"], as_json=as_json)


@app.command("history")
def history(
    model: str,
    as_json: Json = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Every version of a model's price."""
    settings = load({"data_dir": data_dir}, config=config)
    _show(call(settings, "GET", f"{_PATH}/{quote(model)}")["prices"], as_json=as_json)


@app.command("set")
def set_price(
    model: str,
    quoted: Annotated[
        list[str] | None,
        typer.Argument(
            help="What a model card's [price] says, as name=value: input=0.02 output=0.04 "
            f"cached=0.01 (per million tokens), one of {', '.join(UNITS)}; priority=1.5 flex=0.8; "
            "discount=0.2 discount_ends=2027-01-01T00:00:00Z; payer=ACCOUNT with uptime_seconds."
        ),
    ] = None,
    valid_from: Annotated[
        str | None, typer.Option("--from", help="RFC 3339, such as 2027-01-01T00:00:00Z.")
    ] = None,
    free: Annotated[bool, typer.Option("--free", help="It costs nothing.")] = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Set a whole price, now or from a moment to come. What it does not quote costs nothing."""
    settings = load({"data_dir": data_dir}, config=config)
    price = _fields(quoted or [])
    body = {"model": model, "price": price, "valid_from": valid_from, "free": free}
    _show(call(settings, "POST", _PATH, body)["prices"], as_json=False)


@app.command("reset")
def reset(model: str, data_dir: DataDir = None, config: Config = None) -> None:
    """Let the model's card set its price again."""
    settings = load({"data_dir": data_dir}, config=config)
    _show(call(settings, "DELETE", f"{_PATH}/{quote(model)}")["prices"], as_json=False)


def _fields(quoted: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for one in quoted:
        name, equals, value = one.partition("=")
        if not equals:
            raise BadRequest(f"{one!r} is not of the form name=value.")
        fields[name] = value
    return fields


def _show(prices: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(prices).decode())
        return
    table = Table(box=None, pad_edge=False)
    for title in ("version", "model", "state", "set by", "price", "from", "to"):
        table.add_column(title, overflow="fold")
    for price in prices:
        cells = (price[name] or "-" for name in ("valid_from", "valid_to"))
        table.add_row(
            str(price["version"]),
            price["model"],
            price["state"],
            price["source"],
            _price(price),
            *cells,
        )
    show_table(table)


def _price(price: dict[str, Any]) -> str:
    """The lines of a price on one line."""
    told: list[str] = []
    for line in price["lines"]:
        per_million = line["unit"].endswith(("_tokens", "_characters"))
        amount = line["usd_per_million"] if per_million else line["usd"]
        unit = line["unit"].removesuffix("_tokens").removesuffix("s").replace("_", " ")
        told.append(f"${amount}/{'M ' if per_million else ''}{unit}")
    for name in ("priority", "flex"):
        if price[name] is not None:
            told.append(f"{name} ×{price[name]}")
    if price["discount"] is not None:
        told.append(f"{price['discount']} off")
    return ", ".join(told)
