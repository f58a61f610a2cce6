"""Reranking with trained cross-encoders in ONNX: sequence classifiers that read pairs.

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
from inferd.errors import BadRequest, ContextLengthExceeded, EngineFailed
from inferd.tasks.base import Counted, Progress, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.reranker import RerankRequest, Scored

if TYPE_CHECKING:
    from inferd.engines.cross_encoder_model import CrossEncoderModel, PairIds

STEP_TOKENS_MAX = 512
STEP_PAIRS_MAX = 32
OVERHEAD_BYTES = 200 << 20
"""Python, numpy, ONNX Runtime, a tokenizer and the activations of a step."""


class _Loaded(NamedTuple):
    card: ModelCard
    model: CrossEncoderModel
    batches: Batches[PairIds, float]


class OnnxCrossEncoderEngine:
    """One cross-encoder, shared by all requests in batches."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Open the model and warm up."""
        try:
            from inferd.engines.cross_encoder_model import CrossEncoderModel
            from inferd.engines.onnx import device_of, encoder_files
        except ImportError as error:
            raise EngineFailed(
                "This model needs the extra inferd[starter]: pip install 'inferd[starter]'.",
                detail=repr(error),
            ) from error

        graph, tokenizer = encoder_files(card, resources)
        model = CrossEncoderModel(
            graph, tokenizer, card.context_length, resources.threads, device_of(card)
        )
        shape = Shape(STEP_PAIRS_MAX, STEP_TOKENS_MAX)
        self._loaded = _Loaded(card, model, Batches(model.score, shape, "pairs"))
        return Features(("reranker",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Count, score."""
        if not isinstance(request, RerankRequest):
            raise unsupported("onnx_cross_encoder", request)
        if request.instruction:
            raise BadRequest(
                f"The model {request.model} takes no instruction.", param="instruction"
            )
        assert self._loaded is not None, "nothing runs before it is loaded"
        batches = self._loaded.batches
        pairs = await asyncio.to_thread(self._pairs, request)
        sizes = [len(pair.ids) for pair in pairs]
        yield Counted(Usage(sum(sizes)))
        scores = [0.0] * len(pairs)
        done = tokens = 0
        async with aclosing(batches.run(pairs, sizes, cancel)) as results:
            async for index, score in results:
                scores[index] = score
                done, tokens = done + 1, tokens + sizes[index]
                yield Progress(Usage(tokens), done, len(pairs))
        if done < len(pairs):
            yield Stopped(Usage(tokens))
        else:
            yield Scored(tuple(scores), Usage(tokens))

    def _pairs(self, request: RerankRequest) -> list[PairIds]:
        assert self._loaded is not None, "nothing runs before it is loaded"
        card, model, _ = self._loaded
        for query in set(request.queries):
            tokens = model.query_tokens(query)
            if tokens > card.context_length * 3 // 4:
                raise ContextLengthExceeded(
                    f"The query has {tokens} tokens, which leaves too little of the "
                    f"{card.context_length} that the model reads at once for a document.",
                    param="query",
                )
        return model.pairs(request.pairs(), request.document_tokens_max)

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
