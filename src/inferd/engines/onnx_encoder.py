"""Embeddings with ONNX Runtime and tokenizers: BERT-like encoders.

Options of a card:

    pooling         "mean" (default), "cls" or "last"
    normalize       true by default
    query_prefix    what goes before a text of input_type query, such as "query: "
    passage_prefix  the same for passages
    device          "cpu" (default), "cuda" or "auto", as in onnx.py
    instruction     how an instruction is put before a text; holds {instruction} and {text}

Files: `model` (ONNX) and `tokenizer` (tokenizer.json), or `model` as a folder of both (onnx.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.batching import Batches, Shape
from inferd.engines.embedding_inputs import check_rows, ending, prefixed
from inferd.errors import EngineFailed
from inferd.tasks.base import Counted, Stopped, Usage
from inferd.tasks.embeddings import EmbeddingsRequest
from inferd.tasks.every import Event

if TYPE_CHECKING:
    from inferd.engines.encoder_model import EncoderModel, Vector

STEP_TOKENS_MAX = 512
"""Of one step, padding included. Measured with MiniLM on two cores: 15 % less CPU for each text
than with 2048, and less memory, since the activations of a step stay in the cores' caches."""
STEP_TEXTS_MAX = 64
OVERHEAD_BYTES = 200 << 20
"""Python, numpy, ONNX Runtime, a tokenizer and the activations of a step."""
INLINE_BYTES = 4096
"""Shorter requests are tokenised at once: a hop to a thread costs more."""


class _Loaded(NamedTuple):
    card: ModelCard
    model: EncoderModel
    batches: Batches[list[int], Vector]


class OnnxEncoderEngine:
    """One encoder, shared by all requests in batches."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Open the model and warm up."""
        try:
            from inferd.engines.encoder_model import EncoderModel
            from inferd.engines.onnx import device_of, encoder_files
        except ImportError as error:
            raise EngineFailed(
                "This model needs the extra inferd[starter]: pip install 'inferd[starter]'.",
                detail=repr(error),
            ) from error

        pooling = card.options.get("pooling", "mean")
        if pooling not in ("mean", "cls", "last"):
            raise EngineFailed(f"The card's pooling is mean, cls or last, not {pooling!r}.")
        graph, tokenizer = encoder_files(card, resources)
        model = EncoderModel(graph, tokenizer, pooling, resources.threads, device_of(card))
        shape = Shape(STEP_TEXTS_MAX, STEP_TOKENS_MAX)
        self._loaded = _Loaded(card, model, Batches(model.embed, shape, "encoder"))
        return Features(("embeddings",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Count, embed, shape."""
        if not isinstance(request, EmbeddingsRequest):
            raise unsupported("onnx_encoder", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        card, model, batches = self._loaded
        if request.input_bytes() <= INLINE_BYTES:
            rows = self._rows(model, card, request)
        else:
            rows = await asyncio.to_thread(self._rows, model, card, request)
        sizes = [len(row) for row in rows]
        yield Counted(Usage(sum(sizes)))
        vectors: dict[int, Vector] = {}
        async with aclosing(batches.run(rows, sizes, cancel)) as results:
            async for index, vector in results:
                vectors[index] = vector
        usage = Usage(sum(sizes[index] for index in vectors))
        if len(vectors) < len(rows):
            yield Stopped(usage)
            return
        yield ending(card, request, [vectors[index] for index in range(len(rows))], usage)

    def _rows(
        self, model: EncoderModel, card: ModelCard, request: EmbeddingsRequest
    ) -> list[list[int]]:
        texts = [prefixed(card, request, one) for one in request.inputs if isinstance(one, str)]
        encoded = iter(model.ids(texts))
        rows = [next(encoded) if isinstance(one, str) else list(one) for one in request.inputs]
        check_rows(rows, card, model.vocabulary_size)
        return rows

    async def close(self) -> None:
        """Let the running step end."""
        if self._loaded is not None:
            await self._loaded.batches.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """What the card knows; else the weights, twice while they are opened, and a step."""
        size = sum(path.stat().st_size for path in files.values() if path.is_file())
        declared = sum(file.size_bytes for file in card.files)
        return card.memory_bytes or 2 * max(size, declared) + OVERHEAD_BYTES
