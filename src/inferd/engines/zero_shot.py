"""What the zero-shot engines share: one tower for pictures, one for labels, and their likeness.

Pictures and labels are computed in batches that requests share; label vectors are kept, for the
next request most likely asks for the same ones.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.batching import Batches, Shape
from inferd.engines.compute_time import computed, measured, shared
from inferd.tasks.base import Stopped
from inferd.tasks.classification import Label, Labelled, ZeroShotImageRequest
from inferd.tasks.every import Event
from inferd.tasks.media import Media

if TYPE_CHECKING:
    from inferd.engines.onnx import Array

STEP_PICTURES_MAX = 8
STEP_LABELS_MAX = 64
STEP_LABEL_CHARACTERS_MAX = 4096
KEPT_LABELS_MAX = 4096
"""At 4 KB or less each."""


class Towers(Protocol):
    """A loaded pair of networks. Thread-safe."""

    def prepared(self, media: Media) -> Array:
        """A decoded picture as the picture tower takes it. BadRequest when it is none."""
        ...

    def pictures(self, prepared: list[Array]) -> list[Array]:
        """One vector of length 1 for each picture."""
        ...

    def labels(self, labels: list[str]) -> list[Array]:
        """One vector of length 1 for each label. BadRequest when one is too long."""
        ...

    def scores(self, picture: Array, labels: list[Array]) -> list[float]:
        """How well each label fits."""
        ...


class _Loaded(NamedTuple):
    towers: Towers
    pictures: Batches[Array, tuple[Array, float]]
    labels: Batches[str, tuple[Array, float]]


class ZeroShotEngine:
    """Any pair of towers; an engine says how its own are opened."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None
        self._kept: OrderedDict[str, Array] = OrderedDict()

    def open(self, card: ModelCard, resources: Resources) -> Towers:
        """The towers of a card. Raises EngineFailed."""
        raise NotImplementedError

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Open both towers and warm up."""
        towers = self.open(card, resources)
        self._loaded = _Loaded(
            towers,
            Batches(
                shared(towers.pictures), Shape(STEP_PICTURES_MAX, STEP_PICTURES_MAX), "pictures"
            ),
            Batches(
                shared(towers.labels), Shape(STEP_LABELS_MAX, STEP_LABEL_CHARACTERS_MAX), "labels"
            ),
        )
        return Features(("zero-shot-image-classification",), card.slots, 0)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Decode, place the picture and the labels, compare."""
        if not isinstance(request, ZeroShotImageRequest):
            raise unsupported("zero_shot", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        towers, pictures, _ = self._loaded
        prepared, seconds = await asyncio.to_thread(measured(towers.prepared), request.image)
        found: Array | None = None
        async for _, (picture, share) in pictures.run([prepared], [1], cancel):
            found, seconds = picture, seconds + share
        labels, share = await self._labels(self._loaded, request.labels, cancel)
        seconds += share
        if found is None or len(labels) < len(set(request.labels)):
            yield Stopped(computed(seconds))
            return
        scores = towers.scores(found, [labels[label] for label in request.labels])
        pairs = sorted(zip(request.labels, scores, strict=True), key=lambda pair: -pair[1])
        yield Labelled(tuple(Label(label, score) for label, score in pairs), computed(seconds))

    async def _labels(
        self, loaded: _Loaded, labels: tuple[str, ...], cancel: asyncio.Event
    ) -> tuple[dict[str, Array], float]:
        """Vectors by label, and the seconds that the new ones took; fewer when cancelled."""
        found = {label: self._kept[label] for label in labels if label in self._kept}
        new = [label for label in dict.fromkeys(labels) if label not in found]
        sizes = [len(label) for label in new]
        seconds = 0.0
        async for index, (vector, share) in loaded.labels.run(new, sizes, cancel):
            found[new[index]] = vector
            seconds += share
        for label, vector in found.items():
            self._kept[label] = vector
            self._kept.move_to_end(label)
        while len(self._kept) > KEPT_LABELS_MAX:
            self._kept.popitem(last=False)
        return found, seconds

    async def close(self) -> None:
        """Let the running steps end."""
        if self._loaded is not None:
            await self._loaded.pictures.close()
            await self._loaded.labels.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """The weights as floats, decoded pictures, the activations of a step."""
        size = sum(path.stat().st_size for path in files.values() if path.exists())
        declared = sum(file.size_bytes for file in card.files)
        return 3 * max(size, declared) + (250 << 20)
