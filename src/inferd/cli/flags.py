"""Flags that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

DataDir = Annotated[str | None, typer.Option(help="Where everything lies.", show_default=False)]
Config = Annotated[str | None, typer.Option(help="A TOML file.", show_default=False)]
