"""Native reranking (deepinfra-api 3.4): `query` or `queries`, in pairs or one for all."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferd.admission.work import Work
from inferd.api import inference, single
from inferd.api.deferred import take_webhook
from inferd.api.exchange import Exchange
from inferd.api.instructions import INSTRUCTION_CHARACTERS_MAX, instruction_for
from inferd.api.native.envelope import InferenceStatus, NativeTeller, succeeded
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest
from inferd.tasks.every import Ending
from inferd.tasks.reranker import PAIRS_MAX, RerankRequest, Scored

Instruction = Annotated[str, Meta(max_length=INSTRUCTION_CHARACTERS_MAX)]


class RerankIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    query: str | list[str] | None = None
    queries: list[str] | str | None = None
    """One for each document, or one for all."""
    documents: list[str]
    instruction: Instruction | None = None
    custom_instruction: Instruction | None = None
    service_tier: str | None = None
    webhook: str | None = None


class RerankOut(msgspec.Struct, frozen=True):
    """The response body."""

    request_id: str
    inference_status: InferenceStatus
    scores: list[float]
    """In the order of the documents, from 0 to 1."""
    input_tokens: int


_DECODER = msgspec.json.Decoder(RerankIn)
_encode = msgspec.json.Encoder().encode


async def reranker(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Score."""
    body = await inference.read_form_or_json(exchange, services, _DECODER, RerankIn)
    take_webhook(exchange, body.webhook)
    queries = _queries(body)
    check_documents(body.documents)
    if len(queries) not in (1, len(body.documents)):
        raise BadRequest(
            f"There are {len(queries)} queries and {len(body.documents)} documents: give one "
            "query for all documents, or one for each.",
            param="queries",
        )
    instruction = instruction_for(card, body.instruction, body.custom_instruction)
    request = RerankRequest(card.name, queries, tuple(body.documents), instruction=instruction)
    order = single.order(exchange, card, request, "native", tier=body.service_tier)
    await single.answer(exchange, services, order, _Teller())


def check_documents(documents: list[str]) -> None:
    """Raise BadRequest for none or too many."""
    if not 1 <= len(documents) <= PAIRS_MAX:
        raise BadRequest(f"documents holds 1 to {PAIRS_MAX} texts.", param="documents")


def _queries(body: RerankIn) -> tuple[str, ...]:
    if (body.query is None) == (body.queries is None):
        raise BadRequest("Give either query or queries.", param="queries")
    given = body.query if body.query is not None else body.queries
    found = (given,) if isinstance(given, str) else tuple(given or ())
    if not all(found):
        raise BadRequest("A query must not be empty.", param="queries")
    return found


class _Teller(NativeTeller):
    def last(self, ending: Ending, work: Work) -> bytes:
        assert isinstance(ending, Scored), "the task's ending"
        usage = ending.usage
        status = succeeded(work, usage)
        scores = list(ending.scores)
        return _encode(RerankOut(work.order.request_id, status, scores, usage.input_tokens))
