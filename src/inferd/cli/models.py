"""`inferd models`: the catalogue and the files on this machine."""

from __future__ import annotations

import typer
from rich.table import Table

from inferd.catalog.card import ModelCard
from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.cli.progress import ProgressLines
from inferd.cli.server_client import ServerClient
from inferd.cli.tables import show_table
from inferd.errors import Conflict
from inferd.money import usd_text
from inferd.settings import Settings, load

app = typer.Typer(no_args_is_help=True)


def _settings(data_dir_flag: str | None, config: str | None) -> Settings:
    return load({"data_dir": data_dir_flag}, config=config)


@app.command("list")
def list_models(data_dir: DataDir = None, config: Config = None) -> None:
    """All models, with what is here and what runs."""
    from inferd.cli import wiring

    settings = _settings(data_dir, config)
    states = _states(settings)
    files = wiring.store(settings)
    table = Table(box=None, pad_edge=False)
    for title in ("model", "task", "context", "on disk", "state", "usd"):
        table.add_column(title)
    for card in wiring.catalog(settings).cards():
        size = f"{files.size_bytes(card) / 1e6:.0f} MB" if files.installed(card) else "-"
        size = "remote" if card.model_server else size
        price = _short_price(card)
        state = states.get(card.name, "-")
        context = str(card.context_length or "-")
        table.add_row(card.name, card.task, context, size, state, price)
    show_table(table)


def _short_price(card: ModelCard) -> str:
    """Per million tokens in and out, or what the task's own unit costs."""
    if card.price is None:
        return "free"
    unit = card.price.unit()
    if unit is None:
        return f"{card.price.input} / {card.price.output} per million tokens"
    quote = card.price.units().get(unit, "0")
    named = {"input_characters": "million characters", "image_units": "image unit"}
    return f"{quote} per {named.get(unit, unit.replace('_', ' ').removesuffix('s'))}"


def _states(settings: Settings) -> dict[str, str]:
    server = data_dir.running_server(settings)
    if server is None:
        return {}
    status = ServerClient(server).call("GET", "/v1/status")
    return {model["model"]: model["state"] for model in status["models"]}


@app.command("show")
def show(model: str, data_dir: DataDir = None, config: Config = None) -> None:
    """One model's card."""
    from inferd.cli import wiring

    settings = _settings(data_dir, config)
    card = wiring.catalog(settings).get(model)
    files = wiring.store(settings)
    rows = {
        "model": card.name,
        "summary": card.summary,
        "task": card.task,
        "engine": card.engine,
        "context": f"{card.context_length} tokens",
        "slots": str(card.slots),
        "licence": card.licence,
        "price": _price(card),
        "files": "here" if files.installed(card) else "not fetched",
        "size": f"{files.size_bytes(card) / 1e6:.1f} MB",
    }
    for name, value in rows.items():
        typer.echo(f"{name:8} {value}")


def _price(card: ModelCard) -> str:
    if card.price is None:
        return "free"
    fresh, cached, output = (usd_text(rate) for rate in card.rates())
    return f"{fresh} input, {cached} cached input, {output} output, per million tokens"


@app.command("pull")
def pull(model: str, data_dir: DataDir = None, config: Config = None) -> None:
    """Fetch a model's files now."""
    from inferd.cli import wiring

    settings = _settings(data_dir, config)
    card = wiring.catalog(settings).get(model)
    _prepare(settings)
    files = wiring.run_async(wiring.store(settings).fetch(card, ProgressLines().show))
    for role, path in files.items():
        typer.echo(f"{role}: {path.stat().st_size / 1e6:.1f} MB")


def _prepare(settings: Settings) -> None:
    data_dir.prepare(settings)


@app.command("rm")
def remove(model: str, data_dir: DataDir = None, config: Config = None) -> None:
    """Delete a model's files. They are fetched again when they are needed."""
    from inferd.cli import wiring

    settings = _settings(data_dir, config)
    card = wiring.catalog(settings).get(model)
    if _states(settings).get(card.name, "cold") != "cold":
        raise Conflict(f"{card.name} is loaded; stop the server or wait until it is idle.")
    freed = wiring.store(settings).remove(card)
    typer.echo(f"Freed {freed / 1e6:.1f} MB.")
