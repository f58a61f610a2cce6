"""The commented file with every setting, its bounds and its default."""

from __future__ import annotations

from typing import get_type_hints

import msgspec
from msgspec import Meta

from inferd.settings.values import Settings


def example_toml() -> str:
    """The commented file with every setting, its bounds and its default."""
    lines = [
        "# Every setting of inferd with its default. Copy to inferd.toml, or point INFERD_CONFIG at it.",  # noqa: E501
        "# Each is also a variable (INFERD_PORT) and a flag of `inferd serve` (--set port=8000).",
    ]
    hints = get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        meta: Meta = hints[field.name].__metadata__[0]
        lines += ["", f"# {meta.description}{_bounds(meta)}"]
        # None means "decided at the start", which TOML cannot say: a valid value stands for it.
        default = True if field.default is None else field.default
        shown = str(default).lower() if isinstance(default, bool) else _toml(default)
        lines.append(f"#{field.name} = {shown}")
    return "\n".join(lines) + "\n"


def _bounds(meta: Meta) -> str:
    names = {"ge": "at least", "gt": "more than", "le": "at most"}
    found = [
        f"{word} {getattr(meta, key)}"
        for key, word in names.items()
        if getattr(meta, key) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
