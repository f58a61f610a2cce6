"""POST /v1[/openai]/responses: OpenAI's Responses API without storage (deepinfra-api 4.11)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from inferd.admission.work import Work
from inferd.api import generation, inference
from inferd.api.exchange import Exchange
from inferd.api.generation import Wish
from inferd.api.openai.responses_growth import Event, Growth
from inferd.api.openai.responses_in import ResponseIn, refuse, sampling
from inferd.api.openai.responses_items import media_parts, to_messages
from inferd.api.openai.responses_out import (
    IncompleteDetails,
    ResponseError,
    ResponseOut,
    response_started,
    response_usage,
)
from inferd.api.openai.responses_tools import tool_use
from inferd.api.parts import NOTHING_TAKEN, Taken, take_parts
from inferd.api.services import Services
from inferd.clock import Clock
from inferd.errors import BadRequest, InferdError, NotFound, TooManyRequests
from inferd.tasks.text_generation import ChatPrompt, Constraint, Done, Text, TextGenerationRequest

_DECODER = msgspec.json.Decoder(ResponseIn)
_encode = msgspec.json.Encoder().encode


class ResponseAnswer:
    """Says an answer as a response object, or as the events of one."""

    def __init__(self, response: ResponseOut, growth: Growth, clock: Clock) -> None:
        self._response, self._growth, self._clock = response, growth, clock
        self._sequence = 0

    def text(self, event: Text, work: Work) -> bytes:
        """The events for new text; the first ones open the response."""
        return self._opening(work) + self._say(self._growth.add(event))

    def fold(self, event: Text) -> None:
        """Keep new text."""
        for _ in self._growth.add(event):
            pass

    def last(self, done: Done, work: Work) -> bytes:
        """What closes the items, and the whole response."""
        opening = self._opening(work)
        closing = self._say(self._growth.end(_status(done)))
        response = self._ended(done, work)
        name = f"response.{response.status}"
        return opening + closing + self._say([(name, {"response": response})])

    def body(self, done: Done, work: Work) -> bytes:
        """The plain body."""
        for _ in self._growth.end(_status(done)):
            pass
        return _encode(self._ended(done, work))

    def failed(self, error: InferdError) -> bytes:
        """An error event, and the response as far as it came."""
        told = {"code": error.code, "message": error.message, "param": error.param}
        reason = ResponseError(_failure(error), error.message)
        response = msgspec.structs.replace(
            self._response, status="failed", error=reason, output=self._growth.items
        )
        events: list[Event] = [("error", told), ("response.failed", {"response": response})]
        return self._opening(None) + self._say(events)

    def _opening(self, work: Work | None) -> bytes:
        if self._sequence:
            return b""
        self._name_model(work)
        fields: dict[str, object] = {"response": self._response}
        return self._say([("response.created", fields), ("response.in_progress", fields)])

    def _name_model(self, work: Work | None) -> None:
        """Say which of the models answers, and at which tier."""
        if work is not None:
            self._response = msgspec.structs.replace(
                self._response, model=work.order.card.name, service_tier=work.paid_tier
            )

    def _ended(self, done: Done, work: Work) -> ResponseOut:
        self._name_model(work)
        status = _status(done)
        complete = status == "completed"
        return msgspec.structs.replace(
            self._response,
            status=status,
            completed_at=self._clock.unix_ns() // 1_000_000_000 if complete else None,
            incomplete_details=None if complete else IncompleteDetails(),
            output=self._growth.items,
            usage=response_usage(done.usage, work.cost_nanos),
        )

    def _say(self, events: Iterable[Event]) -> bytes:
        said: list[bytes] = []
        for name, fields in events:
            told = {"type": name, **fields, "sequence_number": self._sequence}
            said.append(b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(told)))
            self._sequence += 1
        return b"".join(said)


def _status(done: Done) -> Literal["completed", "incomplete"]:
    return "incomplete" if done.reasons[0] == "length" else "completed"


def _failure(
    error: InferdError,
) -> Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]:
    """The nearest of OpenAI's codes of failed responses."""
    if isinstance(error, TooManyRequests):
        return "rate_limit_exceeded"
    return "invalid_prompt" if isinstance(error, BadRequest) else "server_error"


async def create_response(exchange: Exchange, services: Services) -> None:
    """Answer one request."""
    wire = await inference.read_cut(exchange, services, _DECODER)
    refuse(wire)
    models = generation.fallbacks(wire.model, wire.models)
    taken = await take_parts(exchange, services, models, media_parts(wire))
    wish = Wish(
        models=models,
        request=to_request(wire, taken),
        dialect="openai",
        streamed=bool(wire.stream),
        end_user=wire.end_user,
        tag=(wire.metadata or {}).get("tag"),
        tier=wire.service_tier,
        fail_fast=bool(wire.fail_fast),
    )
    started = response_started(
        wire,
        request_id=exchange.request_id,
        created_at=services.clock.unix_ns() // 1_000_000_000,
        tier=generation.service_tier(exchange, wire.service_tier),
        temperature=services.catalog.serving(models[0]).temperature(),
    )
    growth = Growth(exchange.request_id, logprobs=wire.logprobs is not None)
    # One for all models: only the one that answers gives it anything to say.
    answer = ResponseAnswer(started, growth, services.clock)
    await generation.generate(exchange, services, wish, lambda _: answer)


async def stored_response(exchange: Exchange, services: Services) -> None:
    """Responses are not kept, so there is none of any id."""
    raise NotFound("There is no response of this id: responses are not stored here.")


def to_request(wire: ResponseIn, taken: Taken = NOTHING_TAKEN) -> TextGenerationRequest:
    """The task's request. Raises BadRequest for what cannot be honoured."""
    effort = wire.reasoning.effort if wire.reasoning is not None else None
    prompt = ChatPrompt(
        to_messages(wire, taken),
        tool_use=tool_use(wire),
        template_kwargs=generation.template_kwargs(wire.chat_template_kwargs, effort),
        continue_final=bool(wire.continue_final_message),
    )
    if prompt.continue_final and prompt.messages[-1].role != "assistant":
        raise BadRequest(
            "continue_final_message needs an assistant's message at the end.",
            param="continue_final_message",
        )
    return TextGenerationRequest(
        model=wire.model,
        prompt=prompt,
        max_tokens=wire.max_output_tokens,
        sampling=sampling(wire),
        cache_key=wire.prompt_cache_key or "",
        constraint=_constraint(wire),
        logprobs=wire.logprobs,
        stop_token_ids=tuple(wire.stop_token_ids or ()),
        ignore_eos=bool(wire.ignore_eos),
    )


def _constraint(wire: ResponseIn) -> Constraint | None:
    """What the text must match. Raises BadRequest for a schema that is missing."""
    wanted = wire.text.format if wire.text is not None else None
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_schema" and wanted.schema is None:
        raise BadRequest("schema is missing.", param="text.format.schema")
    generation.check_depth(wanted.schema, "text.format.schema")
    return Constraint(wanted.type, schema=wanted.schema)
