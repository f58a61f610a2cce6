"""Reads flags, environment and file into Settings."""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from inferd.errors import BadRequest
from inferd.settings.rules import contradictions
from inferd.settings.values import Settings

PREFIX = "INFERD_"
CONFIG_VARIABLE = "INFERD_CONFIG"
CONFIG_FILE = "inferd.toml"


def load(flags: Mapping[str, object] | None = None, *, config: str | None = None) -> Settings:
    """Read everything. Raises BadRequest whose message lists all that is wrong, a line each."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    problems: list[str] = []
    environment = dict(_environment(problems))
    named = config or os.environ.get(CONFIG_VARIABLE)
    file = dict(_file(named or _unnamed_file({**environment, **given}), problems))
    values: dict[str, Any] = {}
    hints = get_type_hints(Settings, include_extras=True)
    for name in Settings.__struct_fields__:
        for source, origin in ((given, "--"), (environment, PREFIX), (file, "")):
            if name in source:
                label = _label(name, origin)
                _convert(values, name, (hints[name], source[name], label), problems)
                break
    settings = Settings(**values)
    problems += contradictions(settings)
    if problems:
        raise BadRequest("\n".join(problems))
    return settings


def _label(name: str, origin: str) -> str:
    if origin == PREFIX:
        return PREFIX + name.upper()
    return f"--{name.replace('_', '-')}" if origin == "--" else name


def _convert(
    values: dict[str, Any], name: str, given: tuple[Any, object, str], problems: list[str]
) -> None:
    kind, raw, label = given
    try:
        value = msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        problems.append(f"{label}: {str(error).replace('`', '')}.")
        return
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{label}: Expected a finite number.")
        return
    values[name] = value


def _environment(problems: list[str]) -> Iterator[tuple[str, str]]:
    for variable, value in os.environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in Settings.__struct_fields__ and variable.isupper():
            yield name, value
        else:
            known = [PREFIX + field.upper() for field in Settings.__struct_fields__]
            problems.append(f"{variable} is not a setting.{_nearest(variable, known)}")


def _unnamed_file(known: Mapping[str, object]) -> str | None:
    """`inferd.toml` here, else the one in the data directory."""
    in_data_dir = Settings(data_dir=str(known.get("data_dir") or "")).data_path / CONFIG_FILE
    return next((str(file) for file in (Path(CONFIG_FILE), in_data_dir) if file.exists()), None)


def _file(path: str | None, problems: list[str]) -> Iterator[tuple[str, object]]:
    if path is None:
        return
    file = Path(path)
    if not file.exists():
        problems.append(f"The configuration file {path} does not exist.")
        return
    try:
        content = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        problems.append(f"{file} cannot be read: {error}.")
        return
    for name, value in content.items():
        if name in Settings.__struct_fields__:
            yield name, value
        else:
            problems.append(
                f"{name} in {file} is not a setting.{_nearest(name, Settings.__struct_fields__)}"
            )


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""
