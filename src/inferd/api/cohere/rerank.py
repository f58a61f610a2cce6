"""POST /v1/rerank, /v1/openai/rerank, /v2/rerank: as Cohere's and Jina's clients ask.

Field names are those of Cohere's rerank v1 and v2 and of Jina's reranker, where v1's
`return_documents` and objects with a `text` came from.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import inference, single
from inferd.api.exchange import Exchange
from inferd.api.instructions import instruction_for
from inferd.api.native.envelope import NativeTeller
from inferd.api.native.reranker import Instruction, check_documents
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.errors import UnsupportedField
from inferd.money import usd
from inferd.tasks.every import Ending
from inferd.tasks.reranker import PAIRS_MAX, RerankRequest, Scored


class Document(msgspec.Struct, frozen=True):
    """A document as an object."""

    text: str


class RerankIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    model: str
    query: Annotated[str, Meta(min_length=1)]
    documents: list[str | Document]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    """How many results; absent: all."""
    return_documents: bool | None = None
    instruction: Instruction | None = None
    custom_instruction: Instruction | None = None
    max_tokens_per_doc: Annotated[int, Meta(ge=1)] | None = None
    rank_fields: Any = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    service_tier: str | None = None


class RerankResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One document, best first."""

    index: int
    """Where it stood in the request."""
    relevance_score: float
    """From 0 to 1."""
    document: Document | None = None


class RerankUsage(msgspec.Struct, frozen=True):
    """Tokens of all pairs, as often as the model read them, and what they cost."""

    prompt_tokens: int
    total_tokens: int
    estimated_cost: float


class BilledUnits(msgspec.Struct, frozen=True):
    """What is billed, in Cohere's place."""

    input_tokens: int


class RerankMeta(msgspec.Struct, frozen=True):
    """Cohere's place for the figures."""

    billed_units: BilledUnits


class RerankOut(msgspec.Struct, frozen=True):
    """The response body."""

    id: str
    model: str
    results: list[RerankResult]
    meta: RerankMeta
    usage: RerankUsage


_DECODER = msgspec.json.Decoder(RerankIn)
_encode = msgspec.json.Encoder().encode


async def rerank(exchange: Exchange, services: Services) -> None:
    """Score and sort."""
    body = await inference.read(exchange, services, _DECODER)
    if body.rank_fields is not None:
        raise UnsupportedField("rank_fields is not supported.", param="rank_fields")
    card = inference.find_model(services, body.model, "reranker")
    _check_length(card, body.max_tokens_per_doc)
    texts = [one if isinstance(one, str) else one.text for one in body.documents]
    check_documents(texts)
    instruction = instruction_for(card, body.instruction, body.custom_instruction)
    request = RerankRequest(card.name, (body.query,), tuple(texts), instruction=instruction)
    order = single.order(
        exchange, card, request, "openai", tier=body.service_tier, end_user=body.user
    )
    top = min(body.top_n or PAIRS_MAX, len(texts))
    shown = texts if body.return_documents else None
    await single.answer(exchange, services, order, _Teller(card.name, top, shown))


def _check_length(card: ModelCard, tokens: int | None) -> None:
    """Models cut each document to what they read at once: a higher bound has its effect already."""
    if tokens is not None and tokens < card.context_length:
        raise UnsupportedField(
            f"The model {card.name} cuts documents to the {card.context_length} tokens that it "
            "reads at once; a lower max_tokens_per_doc is not supported.",
            param="max_tokens_per_doc",
        )


class _Teller(NativeTeller):
    def __init__(self, model: str, top: int, texts: list[str] | None) -> None:
        self._model = model
        self._top = top
        self._texts = texts

    def last(self, ending: Ending, work: Work) -> bytes:
        assert isinstance(ending, Scored), "the task's ending"
        scores, tokens = ending.scores, ending.usage.input_tokens
        # Equal scores keep the order of the request.
        best = sorted(range(len(scores)), key=lambda index: -scores[index])[: self._top]
        results = [
            RerankResult(
                index, scores[index], None if self._texts is None else Document(self._texts[index])
            )
            for index in best
        ]
        return _encode(
            RerankOut(
                id=work.order.request_id,
                model=self._model,
                results=results,
                meta=RerankMeta(BilledUnits(tokens)),
                usage=RerankUsage(tokens, tokens, usd(work.cost_nanos)),
            )
        )
