"""A language model as a reranker, on llama.cpp. It reads query and document together.

Options of a card:

    judge         the prompt after which the model says yes or no; holds {query} and {document}
    yes, no       the two answers, one token each ("Yes" and "No")
    judge_weight  of logit(yes) - logit(no) in the score (1)
    given, alone  the document after the query, and without it, for the gain
    gain_weight   of the gain in the score (0: none, and both prompts unused)
    offset        added before the sigmoid (0)
    instruction   what {instruction} is where the caller gives none
    passes        how many prompts there are, for the bound of the cost

File: `model` (GGUF). How the score is made: llm_scorer.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from inferd.catalog.card import ModelCard
from inferd.catalog.gguf_header import kv_cache_bytes_per_token, read_header
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.batching import Batches, Shape
from inferd.engines.llama_load import load_hidden
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import Counted, Progress, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.reranker import RerankRequest, Scored

if TYPE_CHECKING:
    from inferd.engines.llama_choice import LlamaServer
    from inferd.engines.llm_scorer import LlmScorer, Pair

PROMPTS = 3
"""Read side by side."""

OVERHEAD_BYTES = 220 << 20
"""Python, numpy, llama.cpp's code and compute buffers."""


class _Loaded(NamedTuple):
    server: LlamaServer
    """Held: the listener lives as long as it."""
    scorer: LlmScorer
    batches: Batches[Pair, float]


class LlmRerankerEngine:
    """One GGUF model that judges."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Load, and read the rows of the output matrix that are needed."""
        try:
            from inferd.engines.llm_scorer import LlmScorer
        except ImportError as error:
            raise EngineFailed(
                "This model needs the extra inferd[starter]: pip install 'inferd[starter]'.",
                detail=repr(error),
            ) from error

        path = resources.path("model")
        side_by_side = msgspec.structs.replace(card, slots=PROMPTS)
        server, listener = load_hidden(side_by_side, resources, path, "none")
        scorer = LlmScorer(card, path, listener)
        scorer.score(scorer.pairs([("warm", "up")], None))
        self._loaded = _Loaded(server, scorer, Batches(scorer.score, Shape(1, 1 << 30), "judge"))
        return Features(("reranker",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Count, score pair by pair."""
        if not isinstance(request, RerankRequest):
            raise unsupported("llm_reranker", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        _, scorer, batches = self._loaded
        if request.instruction and not scorer.takes_instruction:
            raise BadRequest(
                f"The model {request.model} takes no instruction.", param="instruction"
            )
        pairs = await asyncio.to_thread(
            scorer.pairs, request.pairs(), request.instruction, request.document_tokens_max
        )
        sizes = [pair.tokens() for pair in pairs]
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

    async def close(self) -> None:
        """Let the running pair end."""
        if self._loaded is not None:
            await self._loaded.batches.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """Weights, cache, the output matrix as floats, the logits of a step."""
        path = files.get("model")
        if path is None or not path.exists():
            listed = sum(file.size_bytes for file in card.files)
            return card.memory_bytes or 3 * listed + OVERHEAD_BYTES
        header = read_header(path)
        cache = kv_cache_bytes_per_token(header) * card.context_length * PROMPTS
        rows = next((t.shape[-1] for t in header.tensors if t.name == "token_embd.weight"), 0)
        gain = bool(card.options.get("gain_weight", 0))
        matrix = rows * (header.embedding_length or 0) * 4 if gain else 0
        logits = rows * card.context_length * 4
        return path.stat().st_size + cache + matrix + logits + OVERHEAD_BYTES
