"""Engine names and where their classes are. Imported only when used."""

from __future__ import annotations

from importlib import import_module

from inferd.engines.base import Engine
from inferd.errors import BadRequest

ENGINES = {
    "echo": "inferd.engines.echo:EchoEngine",
    "xllamacpp": "inferd.engines.xllamacpp:XllamacppEngine",
}


def engine_class(name: str) -> type[Engine]:
    """The class behind a name. Raises BadRequest for an unknown one."""
    if name not in ENGINES:
        raise BadRequest(f"Unknown engine {name!r}. Known: {', '.join(sorted(ENGINES))}.")
    module, _, attribute = ENGINES[name].partition(":")
    found: type[Engine] = getattr(import_module(module), attribute)
    return found
