"""The only reader of environment and file.

Precedence: flag, then environment (`INFERD_…`), then the TOML file, then the default. A wrong
value, an unknown variable or an unknown key stops the start; all of them are listed together.
"""

from inferd.settings.example import example_toml
from inferd.settings.reading import load
from inferd.settings.rules import listed
from inferd.settings.values import Settings

__all__ = ["Settings", "example_toml", "listed", "load"]
