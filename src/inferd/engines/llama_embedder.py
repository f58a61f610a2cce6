"""Embeddings of GGUF models on llama.cpp, such as Qwen3-Embedding.

Options of a card:

    pooling         "last" (default), "mean" or "cls"
    normalize, query_prefix, passage_prefix, instruction    as in onnx_encoder.py

File: `model`. The tokenizer is in it.
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
from inferd.catalog.gguf_types import Array
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.batching import Batches, Shape
from inferd.engines.embedding_inputs import check_rows, ending, prefixed
from inferd.engines.llama_load import Pooling, load_hidden
from inferd.engines.llama_tokens import LlamaListener, LlamaTokens
from inferd.errors import EngineFailed
from inferd.tasks.base import Counted, Progress, Stopped, Usage
from inferd.tasks.embeddings import EmbeddingsRequest
from inferd.tasks.every import Event

if TYPE_CHECKING:
    from inferd.engines.encoder_model import Vector
    from inferd.engines.llama_choice import LlamaServer

POOLINGS: dict[str, Pooling] = {"last": "last", "mean": "none", "cls": "none"}
"""The card's word → what llama.cpp is asked for; the rest is done here."""
SIDE_BY_SIDE = 4
"""Texts of one step; each has a slot of the server."""
STEP_TOKENS_MAX = 1024
OVERHEAD_BYTES = 220 << 20


class _Loaded(NamedTuple):
    card: ModelCard
    server: LlamaServer
    """Held: the listener lives as long as it."""
    tokens: LlamaTokens
    batches: Batches[list[int], Vector]


class LlamaEmbedderEngine:
    """One GGUF model that embeds."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Load and warm up."""
        pooling = str(card.options.get("pooling", "last"))
        if pooling not in POOLINGS:
            raise EngineFailed(f"The card's pooling is one of {', '.join(POOLINGS)}.")
        path = resources.path("model")
        vocabulary = read_header(path).value("tokenizer.ggml.tokens")
        size = vocabulary.length if isinstance(vocabulary, Array) else 0
        server, listener = load_hidden(
            msgspec.structs.replace(card, slots=SIDE_BY_SIDE), resources, path, POOLINGS[pooling]
        )
        tokens = LlamaTokens(listener, size)
        embed = _Embed(listener, mean=pooling == "mean")
        embed([[id_ for id_, _ in tokens.tokenize("warm up", add_special=True)]])
        batches = Batches(embed, Shape(SIDE_BY_SIDE, STEP_TOKENS_MAX), "llama")
        self._loaded = _Loaded(card, server, tokens, batches)
        return Features(("embeddings",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Count, embed, shape."""
        if not isinstance(request, EmbeddingsRequest):
            raise unsupported("llama_embedder", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        card, _, _, batches = self._loaded
        rows = await asyncio.to_thread(self._rows, request)
        sizes = [len(row) for row in rows]
        yield Counted(Usage(sum(sizes)))
        vectors: dict[int, Vector] = {}
        tokens = 0
        async with aclosing(batches.run(rows, sizes, cancel)) as results:
            async for index, vector in results:
                vectors[index] = vector
                tokens += sizes[index]
                yield Progress(Usage(tokens), len(vectors), len(rows))
        if len(vectors) < len(rows):
            yield Stopped(Usage(tokens))
            return
        yield ending(card, request, [vectors[index] for index in range(len(rows))], Usage(tokens))

    def _rows(self, request: EmbeddingsRequest) -> list[list[int]]:
        assert self._loaded is not None, "nothing runs before it is loaded"
        card, _, tokens, _ = self._loaded
        rows = [
            [id_ for id_, _ in tokens.tokenize(prefixed(card, request, one), add_special=True)]
            if isinstance(one, str)
            else list(one)
            for one in request.inputs
        ]
        check_rows(rows, card, tokens.vocabulary_size)
        return rows

    async def close(self) -> None:
        """Let the running step end."""
        if self._loaded is not None:
            await self._loaded.batches.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """Weights, cache, the logits that llama.cpp makes room for, and overhead."""
        path = files.get("model")
        if path is None or not path.exists():
            listed = sum(file.size_bytes for file in card.files)
            return card.memory_bytes or 2 * listed + OVERHEAD_BYTES
        header = read_header(path)
        cache = kv_cache_bytes_per_token(header) * card.context_length * SIDE_BY_SIDE
        rows = next((t.shape[-1] for t in header.tensors if t.name == "token_embd.weight"), 0)
        return path.stat().st_size + cache + rows * card.context_length * 4 + OVERHEAD_BYTES


class _Embed:
    """One step, in a thread."""

    def __init__(self, listener: LlamaListener, *, mean: bool) -> None:
        self._listener = listener
        self._mean = mean

    def __call__(self, rows: list[list[int]]) -> list[Vector]:
        from inferd.engines.llama_hidden import hidden_states

        found = hidden_states(self._listener, rows)
        return [states.mean(0) if self._mean else states[0] for states in found]
