"""Money set aside for pairs: documents count as far as they are read."""

from __future__ import annotations

import msgspec

from inferd.admission.bounds import most
from inferd.tasks.reranker import RerankRequest
from tests.gateway import echo_card


def test_a_document_counts_as_far_as_it_is_kept() -> None:
    card = echo_card("test/judge", task="reranker")
    whole = RerankRequest("test/judge", ("why",), ("ä" * 500, "abc"))
    cut = msgspec.structs.replace(whole, document_tokens_max=10)
    saved = most(whole, card).input_tokens - most(cut, card).input_tokens
    assert saved == 1000 - 10
    read_thrice = msgspec.structs.replace(card, options={"passes": 3})
    saved = most(whole, read_thrice).input_tokens - most(cut, read_thrice).input_tokens
    assert saved == 3 * (1000 - 10)


def test_queries_in_pairs_count_once_each() -> None:
    one = RerankRequest("m", ("why",), ("a", "b"))
    two = RerankRequest("m", ("why", "how"), ("a", "b"))
    assert one.input_bytes() == two.input_bytes() == one.tokens_max() == 8
