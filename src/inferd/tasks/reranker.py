"""Reranking: how well does each document answer its query."""

from __future__ import annotations

import msgspec

from inferd.tasks.base import Usage

PAIRS_MAX = 1024


class RerankRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="reranker"):
    """One validated request."""

    model: str
    queries: tuple[str, ...]
    """One for all documents, or one for each."""
    documents: tuple[str, ...]
    """1 to PAIRS_MAX."""
    instruction: str | None = None
    """What relevance means here, where a model was trained to be told."""
    document_tokens_max: int | None = None
    """Each document is cut to so many of the model's tokens; None: to what fits beside the query.
    At least 1."""

    def pairs(self) -> list[tuple[str, str]]:
        """(query, document), in the order of the documents."""
        queries = self.queries if len(self.queries) > 1 else self.queries * len(self.documents)
        return list(zip(queries, self.documents, strict=True))

    def input_bytes(self) -> int:
        """UTF-8 bytes of all pairs."""
        return self._query_bytes() + sum(_bytes(text) for text in self.documents)

    def tokens_max(self) -> int:
        """An upper bound on the tokens of all pairs, templates apart: a token is a byte or more."""
        kept = self.document_tokens_max
        sizes = (_bytes(text) for text in self.documents)
        return self._query_bytes() + sum(min(size, kept or size) for size in sizes)

    def _query_bytes(self) -> int:
        sizes = sum(_bytes(text) for text in self.queries)
        return sizes if len(self.queries) > 1 else sizes * len(self.documents)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


class Scored(msgspec.Struct, frozen=True, array_like=True, tag="scored"):
    """One score in [0, 1] for each document, in their order; the last event."""

    scores: tuple[float, ...]
    usage: Usage


RerankerEvent = Scored
