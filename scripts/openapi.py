"""Writes docs/openapi.json from the route table; with --check, says whether it is up to date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from inferd.api.openapi import openapi_document
from inferd.api.table import ROUTES

FILE = Path("docs/openapi.json")


def main() -> int:
    """0 if the file is right now."""
    text = json.dumps(openapi_document(ROUTES), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv:
        if not FILE.exists() or FILE.read_text() != text:
            print(f"{FILE} is out of date: run `make fix`.")
            return 1
        return 0
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
