"""Where model files lie once they are fetched: by their sha256, whole or not at all.

<root>/blobs/<sha256>               a file as its card pins it
<root>/blobs/<sha256>.<transform>   what was made of it; the source is then dropped
<root>/parts/<sha256>[.part]        wheels, complete or on their way
<root>/models/<owner>@<name>.json   which blobs a model uses, so that shared ones stay
<root>/locks/<sha256>               held while somebody works on that content
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from inferd.catalog.blocking import in_thread
from inferd.catalog.card import BundledSource, HubSource, ModelCard, ModelFile, PathSource
from inferd.catalog.fetch import Fetch, file_sha256
from inferd.catalog.gguf_header import read_header
from inferd.catalog.locks import content_locks, try_content_locks
from inferd.catalog.manifest import Manifests
from inferd.catalog.progress import FetchProgress
from inferd.catalog.safetensors_header import check_index, read_tensors
from inferd.catalog.shelf import Shelf, digests, wheels
from inferd.catalog.sources.every import Sources
from inferd.catalog.sources.packages import PackageRegistry
from inferd.errors import BadRequest, Conflict, Unavailable


class Store:
    """The model files of one data directory. Several processes may share it."""

    def __init__(self, root: Path, sources: PackageRegistry | Sources) -> None:
        self._shelf = Shelf(root)
        self._sources = sources if isinstance(sources, Sources) else Sources(sources)
        self._manifests = Manifests(self._shelf.models)
        self._latest: dict[str, FetchProgress] = {}
        self._believed: set[tuple[str, str, int, int]] = set()

    async def fetch(
        self, card: ModelCard, report: Callable[[FetchProgress], None] | None = None
    ) -> dict[str, Path]:
        """Have the files of a card and return role → path. Without the network when they are here.

        Who comes second waits for who came first and sees his progress. May be cancelled at any
        time; what has come is kept. Raises Unavailable.
        """
        try:
            if not self.installed(card):
                await self._fetch(card, report or _silent)
            await in_thread(lambda _: self._record(card))
            for file in card.files:
                await self._check(file)
        except (Unavailable, BadRequest) as error:
            raise Unavailable(
                f"The model {card.name} cannot be fetched. {error.message}",
                retry_after_seconds=30,
                detail=error.detail,
            ) from error
        except OSError as error:
            raise Unavailable(
                f"The model {card.name} cannot be stored: {error.strerror}.",
                retry_after_seconds=30,
                detail=str(error),
            ) from error
        return self.paths(card)

    def paths(self, card: ModelCard) -> dict[str, Path]:
        """Where the file of each role lies, or will lie once it is fetched."""
        return {file.role: self._shelf.final(file).absolute() for file in card.files}

    def installed(self, card: ModelCard) -> bool:
        """All files are here. Cheap: looks at no content."""
        return all(self._shelf.final(file).exists() for file in card.files)

    def size_bytes(self, card: ModelCard) -> int:
        """Bytes on the disk; of files that are not here yet, what the card says."""
        return sum(_size(self._shelf.final(file), file.size_bytes) for file in card.files)

    def remove(self, card: ModelCard) -> int:
        """Delete what only this model uses and return the bytes freed.

        Files that a card uses in place are never deleted. Conflict while it is being fetched.
        """
        with try_content_locks(self._shelf.locks, digests(card)) as free:
            if not free:
                raise Conflict(f"The model {card.name} is being fetched at this moment.")
            self._manifests.forget(card.name)
            unused = self._manifests.unused(self._blobs(card))
            paths = [self._shelf.blobs / name for name in unused] + self._leftovers(card)
            freed = sum(_size(path, 0) for path in paths)
            for path in paths:
                _delete(path)
        return freed

    async def _fetch(self, card: ModelCard, report: Callable[[FetchProgress], None]) -> None:
        def tell(progress: FetchProgress) -> None:
            self._latest[card.name] = progress
            report(progress)

        def wait() -> None:
            report(self._latest.get(card.name, FetchProgress(card.name, "waiting")))

        async with content_locks(self._shelf.locks, digests(card), wait):
            try:
                await Fetch(card, self._shelf, self._sources, tell).run()
            finally:
                self._latest.pop(card.name, None)

    def _record(self, card: ModelCard) -> None:
        """Note what the model uses; drop what an older card of it used, and what a kill left."""
        unused = self._manifests.write(card.name, self._blobs(card))
        left = [self._shelf.blobs / name for name in unused] + self._leftovers(card)
        if not any(path.exists() for path in left):
            return
        with try_content_locks(self._shelf.locks, digests(card)) as free:
            for path in left if free else []:
                _delete(path)

    def _leftovers(self, card: ModelCard) -> list[Path]:
        """What a complete model has no more use for: its wheels, and the sources of transforms."""
        sources = self._manifests.unused(_sources(card) - self._blobs(card))
        left = [self._shelf.blobs / name for name in sources]
        for wheel in wheels(card.files):
            left += [self._shelf.wheel(wheel), self._shelf.wheel_part(wheel)]
        return left

    def _blobs(self, card: ModelCard) -> frozenset[str]:
        folders = {file.source.key() for file in card.files if isinstance(file.source, HubSource)}
        paths = (self._shelf.final(file) for file in card.files)
        return frozenset(folders | {p.name for p in paths if p.parent == self._shelf.blobs})

    async def _check(self, file: ModelFile) -> None:
        """The header must fit the file, and a file used in place its digest, if it has one."""
        path = self._shelf.final(file)
        await in_thread(lambda _: _check_headers(path, file.file_name))
        local = isinstance(file.source, PathSource | BundledSource)
        if local and file.sha256 and file.transform is None:
            seen = path.stat()
            mark = (str(path), file.sha256, seen.st_size, seen.st_mtime_ns)
            if mark in self._believed:
                return
            if await in_thread(lambda stop: file_sha256(path, stop)) != file.sha256:
                raise Unavailable(f"The file {path.name} has another sha256 than its card says.")
            self._believed.add(mark)


def _check_headers(path: Path, name: str) -> None:
    """Of a file, or of all files in a folder. BadRequest for one that contradicts its size."""
    if path.is_dir():
        for inner in path.rglob("*"):
            if inner.is_file():
                _check_header(inner, inner.name)
    else:
        _check_header(path, name)


def _check_header(path: Path, name: str) -> None:
    if path.suffix == ".gguf" or name.endswith(".gguf"):
        read_header(path)
    elif path.suffix == ".safetensors" or name.endswith(".safetensors"):
        read_tensors(path)
    elif name.endswith(".safetensors.index.json"):
        check_index(path)


def _sources(card: ModelCard) -> frozenset[str]:
    """Sources of transforms, which a killed fetch may have left."""
    return frozenset(file.sha256 for file in card.files if file.sha256)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path, otherwise: int) -> int:
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except FileNotFoundError:
        return otherwise


def _silent(_: FetchProgress) -> None:
    """Nobody waits for a word."""
