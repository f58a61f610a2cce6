"""Writes inferd.example.toml from the settings; with --check, says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from inferd.settings import example_toml

FILE = Path("inferd.example.toml")


def main() -> int:
    """0 if the file is right now."""
    text = example_toml()
    if "--check" in sys.argv:
        if not FILE.exists() or FILE.read_text() != text:
            print(f"{FILE} is out of date: run `make fix`.")
            return 1
        return 0
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
