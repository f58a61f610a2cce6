"""POST /v1/rerank, /v1/openai/rerank, /v2/rerank: as Cohere's and Jina's clients ask.

Field names are those of Cohere's rerank v1 and v2 and of Jina's reranker, where v1's
`return_documents` and objects with a `text` came from. No document is refused for its length: it
is cut to `max_tokens_per_doc`, which Cohere's v2 sets to 4096, and to what the model reads at once.
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
from inferd.errors import UnsupportedField
from inferd.money import usd
from inferd.tasks.every import Ending
from inferd.tasks.reranker import PAIRS_MAX, RerankRequest, Scored

V2_TOKENS_PER_DOCUMENT = 4096
"""Cohere's default in its v2; v1 and Jina's clients name none."""


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
    """Longer documents are cut to so many tokens; absent: 4096 in `/v2`, else what the model reads
    at once."""
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
    await _rerank(exchange, services, None)


async def rerank_v2(exchange: Exchange, services: Services) -> None:
    """The same with the default of Cohere's v2."""
    await _rerank(exchange, services, V2_TOKENS_PER_DOCUMENT)


async def _rerank(exchange: Exchange, services: Services, tokens_max: int | None) -> None:
    body = await inference.read(exchange, services, _DECODER)
    if body.rank_fields is not None:
        raise UnsupportedField("rank_fields is not supported.", param="rank_fields")
    card = inference.find_model(services, body.model, "reranker")
    texts = [one if isinstance(one, str) else one.text for one in body.documents]
    check_documents(texts)
    instruction = instruction_for(card, body.instruction, body.custom_instruction)
    kept = body.max_tokens_per_doc or tokens_max
    request = RerankRequest(
        card.name,
        (body.query,),
        tuple(texts),
        instruction=instruction,
        # More than the model reads changes nothing, and may be too large a number for a frame.
        document_tokens_max=kept and min(kept, card.context_length or kept),
    )
    order = single.order(
        exchange, card, request, "openai", tier=body.service_tier, end_user=body.user
    )
    top = min(body.top_n or PAIRS_MAX, len(texts))
    shown = texts if body.return_documents else None
    await single.answer(exchange, services, order, _Teller(card.name, top, shown))


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
