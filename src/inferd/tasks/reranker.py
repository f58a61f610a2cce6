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

    def pairs(self) -> list[tuple[str, str]]:
        """(query, document), in the order of the documents."""
        queries = self.queries if len(self.queries) > 1 else self.queries * len(self.documents)
        return list(zip(queries, self.documents, strict=True))

    def input_bytes(self) -> int:
        """UTF-8 bytes of all pairs: an upper bound on their tokens, templates apart."""
        sizes = [len(text.encode("utf-8", "replace")) for text in self.queries]
        repeated = sum(sizes) if len(sizes) > 1 else sum(sizes) * len(self.documents)
        return repeated + sum(len(text.encode("utf-8", "replace")) for text in self.documents)


class Scored(msgspec.Struct, frozen=True, array_like=True, tag="scored"):
    """One score in [0, 1] for each document, in their order; the last event."""

    scores: tuple[float, ...]
    usage: Usage


RerankerEvent = Scored
