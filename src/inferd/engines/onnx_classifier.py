"""Image classification with ONNX Runtime: any network from pixels to logits.

Files: `model` (ONNX; one input of shape batch, 3, side, side) and `classes` (one name a line, in
the order of the logits). Options: those of picture_input.py.

A picture is decoded in a thread of its own, so a bad one fails alone; what is decoded is computed
in batches that requests share.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.batching import Batches, Shape
from inferd.engines.compute_time import computed, measured, shared
from inferd.tasks.base import Stopped
from inferd.tasks.classification import ImageClassificationRequest, Labelled
from inferd.tasks.every import Event

if TYPE_CHECKING:
    from inferd.engines.classifier_model import ClassifierModel
    from inferd.engines.onnx import Array
    from inferd.engines.picture_input import Pixels

STEP_PICTURES_MAX = 8


class _Loaded(NamedTuple):
    model: ClassifierModel
    batches: Batches[Pixels, tuple[Array, float]]


class OnnxClassifierEngine:
    """One classifier."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Open the network and warm up."""
        from inferd.engines.classifier_model import ClassifierModel

        paths = resources.path("model"), resources.path("classes")
        model = ClassifierModel(card, *paths, resources.threads)
        shape = Shape(STEP_PICTURES_MAX, STEP_PICTURES_MAX)
        self._loaded = _Loaded(model, Batches(shared(model.probabilities), shape, "classifier"))
        return Features(("image-classification",), card.slots, 0)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Decode, classify, name."""
        if not isinstance(request, ImageClassificationRequest):
            raise unsupported("onnx_classifier", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        model, batches = self._loaded
        pixels, seconds = await asyncio.to_thread(measured(model.input.prepared), request.image)
        async for _, (probabilities, share) in batches.run([pixels], [1], cancel):
            labels = model.likeliest(probabilities, request.top)
            yield Labelled(labels, computed(seconds + share))
            return
        yield Stopped(computed(seconds))

    async def close(self) -> None:
        """Let the running step end."""
        if self._loaded is not None:
            await self._loaded.batches.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """The weights as floats, decoded pictures, the activations of a step."""
        size = sum(path.stat().st_size for path in files.values() if path.exists())
        declared = sum(file.size_bytes for file in card.files)
        return 4 * max(size, declared) + (200 << 20)
