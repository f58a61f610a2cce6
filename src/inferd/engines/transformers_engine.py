"""Any model of transformers that does one of seven tasks, from a folder of safetensors.

The tasks: text-, token-, image- and zero-shot-image-classification, fill-mask,
question-answering, object-detection. It needs the extra `transformers`.

The card has one file with the role `model`, which is the model's folder: a hub source, or a path.
Options: `dtype` ("float32" by default), and `label_template` of zero-shot models. Weights are
safetensors alone; code that a model brings is never run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.catalog.card import ModelCard
from inferd.engines.base import Engine, Features, Request, Resources, unsupported
from inferd.engines.batching import Batches, Shape
from inferd.engines.compute_time import computed, measured, shared
from inferd.engines.zero_shot import Towers, ZeroShotEngine
from inferd.tasks.base import Counted, Stopped, Usage
from inferd.tasks.every import Event

if TYPE_CHECKING:
    from inferd.engines.transformers_heads import Head

STEP_TEXTS_MAX = 32
STEP_TOKENS_MAX = 2048
STEP_PICTURES_MAX = 4


class TransformersEngine:
    """One model; the card's task says what it is asked for."""

    def __init__(self) -> None:
        self._inner: Engine | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Load the folder."""
        zero_shot = card.task == "zero-shot-image-classification"
        self._inner = _TowersEngine() if zero_shot else _HeadEngine()
        return self._inner.load(card, resources)

    def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Compute."""
        assert self._inner is not None, "nothing runs before it is loaded"
        return self._inner.run(request, cancel)

    async def close(self) -> None:
        """Let the running step end."""
        if self._inner is not None:
            await self._inner.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """The weights, and what torch takes for itself."""
        size = sum(file.stat().st_size for path in files.values() for file in _weights(path))
        declared = sum(file.size_bytes for file in card.files)
        return 2 * max(size, declared) + (700 << 20)


class _TowersEngine(ZeroShotEngine):
    def open(self, card: ModelCard, resources: Resources) -> Towers:
        from inferd.engines.transformers_towers import TransformersTowers

        return TransformersTowers(card, resources)


class _Loaded(NamedTuple):
    head: Head
    batches: Batches[Any, tuple[Any, float]]
    counts_tokens: bool


class _HeadEngine:
    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        from inferd.engines.transformers_heads import open_head
        from inferd.engines.transformers_model import Library

        head = open_head(card, Library(card, resources.path("model"), resources.threads))
        tokens = card.unit() is None
        shape = Shape(STEP_TEXTS_MAX, STEP_TOKENS_MAX) if tokens else Shape(STEP_PICTURES_MAX, 64)
        batches: Batches[Any, tuple[Any, float]] = Batches(shared(head.compute), shape, "model")
        self._loaded = _Loaded(head, batches, tokens)
        return Features((card.task,), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        assert self._loaded is not None, "nothing runs before it is loaded"
        head, batches, counts_tokens = self._loaded
        if not isinstance(request, head.takes):
            raise unsupported("transformers", request)
        items, seconds = await asyncio.to_thread(measured(head.items), request)
        sizes = [head.size(item) for item in items]
        if counts_tokens:
            yield Counted(Usage(sum(sizes)))
        results: dict[int, Any] = {}
        async for index, (result, share) in batches.run(items, sizes, cancel):
            results[index] = result
            seconds += share
        tokens = Usage(sum(sizes[index] for index in results))
        usage = tokens if counts_tokens else computed(seconds)
        if len(results) < len(items):
            yield Stopped(usage)
            return
        ordered = [results[index] for index in range(len(items))]
        yield head.ending(request, items, ordered, usage)

    async def close(self) -> None:
        if self._loaded is not None:
            await self._loaded.batches.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        return TransformersEngine.memory_bytes(card, files)


def _weights(path: Path) -> list[Path]:
    return list(path.glob("*.safetensors")) if path.is_dir() else [path]
