"""Native text generation (deepinfra-api 3.2): a raw prompt in, TGI-style events out.

No event may contain the letters of the word e-r-r-o-r as a key: one client refuses such a stream.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferd.admission.work import Order, Work
from inferd.api import inference
from inferd.api.deferred import take_webhook
from inferd.api.errors import stream_event
from inferd.api.exchange import Exchange
from inferd.api.generation import service_tier
from inferd.api.inference import Attempt
from inferd.api.native.envelope import InferenceStatus, succeeded
from inferd.api.openai.fields import ResponseFormat, constraint
from inferd.api.services import Services
from inferd.api.tag import tag_of
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, InferdError
from inferd.tasks.text_generation import (
    Done,
    FinishReason,
    Sampling,
    Text,
    TextGenerationRequest,
    TextPrompt,
    Token,
)

StopString = Annotated[str, Meta(min_length=1, max_length=1024)]


class TextGenerationIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    input: str
    stream: bool | None = False
    max_new_tokens: Annotated[int, Meta(ge=1, le=100_000)] | None = 512
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = 0.7
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = 0.9
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = 0.0
    top_k: Annotated[int, Meta(ge=0, lt=100_000)] | None = 0
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=5)] | None = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = 0.0
    stop: Annotated[list[StopString], Meta(max_length=16)] | None = None
    num_responses: Annotated[int, Meta(ge=1, le=4)] | None = 1
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    response_format: ResponseFormat | None = None
    service_tier: str | None = None
    webhook: str | None = None


class GeneratedText(msgspec.Struct, frozen=True):
    """One answer: the continuation, without the prompt."""

    generated_text: str


class TextGenerationOut(msgspec.Struct, frozen=True):
    """The response body of a plain call."""

    request_id: str
    inference_status: InferenceStatus
    results: list[GeneratedText]
    num_tokens: int
    num_input_tokens: int


class Details(msgspec.Struct, frozen=True):
    """How a stream ended."""

    finish_reason: str
    generated_tokens: int
    input_tokens: int
    seed: int | None


class TokenOut(msgspec.Struct, frozen=True):
    """A token of the stream."""

    id: int | None
    text: str
    logprob: float | None
    special: bool


class StreamEvent(msgspec.Struct, frozen=True):
    """One event of the stream."""

    token: TokenOut
    generated_text: str | None
    details: Details | None


class LastEvent(msgspec.Struct, frozen=True):
    """The last event: the whole text, and what DeepInfra's envelope carries on a plain call."""

    token: TokenOut
    generated_text: str
    details: Details
    request_id: str
    inference_status: InferenceStatus
    num_tokens: int
    num_input_tokens: int


FINISH: dict[FinishReason, str] = {
    "eos": "eos_token",
    "stop_sequence": "stop_sequence",
    "length": "length",
    "tool_calls": "eos_token",
}

_DECODER = msgspec.json.Decoder(TextGenerationIn)
_encode = msgspec.json.Encoder().encode


class NativeAnswer:
    """Says an answer the native way. One event for each piece of text."""

    def __init__(self, request_id: str, n: int) -> None:
        self._request_id = request_id
        self._texts: list[list[str]] = [[] for _ in range(n)]
        self._last = Token(None, "")

    def text(self, event: Text, work: Work) -> bytes:
        """One event."""
        self.fold(event)
        if event.tokens:
            self._last = event.tokens[-1]
        if not event.text:
            return b""
        shown = TokenOut(self._last.id, event.text, self._last.logprob, special=False)
        return b"data: " + _encode(StreamEvent(shown, None, None)) + b"\n\n"

    def fold(self, event: Text) -> None:
        """Keep text for the body, and for the stream's last event."""
        self._texts[event.choice].append(event.text)

    def last(self, done: Done, work: Work) -> bytes:
        """The closing event and `[DONE]`."""
        usage = done.usage
        event = LastEvent(
            token=TokenOut(self._last.id, "", self._last.logprob, special=True),
            generated_text="".join(self._texts[0]),
            details=Details(
                FINISH[done.reasons[0]], usage.output_tokens, usage.input_tokens, done.seed
            ),
            request_id=self._request_id,
            inference_status=succeeded(work, usage),
            num_tokens=usage.output_tokens,
            num_input_tokens=usage.input_tokens,
        )
        return b"data: " + _encode(event) + b"\n\ndata: [DONE]\n\n"

    def body(self, done: Done, work: Work) -> bytes:
        """The plain body."""
        return _encode(
            TextGenerationOut(
                request_id=self._request_id,
                inference_status=succeeded(work, done.usage),
                results=[GeneratedText("".join(pieces)) for pieces in self._texts],
                num_tokens=done.usage.output_tokens,
                num_input_tokens=done.usage.input_tokens,
            )
        )

    def failed(self, error: InferdError) -> bytes:
        """The error as an event."""
        return stream_event(error)


async def text_generation(exchange: Exchange, services: Services, card: ModelCard) -> None:
    """Answer one native call."""
    wire = await inference.read_form_or_json(exchange, services, _DECODER, TextGenerationIn)
    take_webhook(exchange, wire.webhook)
    n = wire.num_responses or 1
    if wire.stream and n > 1:
        raise BadRequest("num_responses does not go with stream.", param="num_responses")
    request = TextGenerationRequest(
        model=card.name,
        prompt=TextPrompt(wire.input),
        max_tokens=wire.max_new_tokens or 512,
        sampling=_sampling(wire),
        stop=tuple(wire.stop or ()),
        n=n,
        cache_scope=inference.cache_scope(exchange, services),
        constraint=constraint(wire.response_format),
    )
    order = Order(
        request_id=exchange.request_id,
        card=card,
        request=request,
        dialect="native",
        streamed=bool(wire.stream),
        end_user=wire.user,
        tag=tag_of(exchange.headers),
        tier=service_tier(exchange, wire.service_tier),
    )
    answer = NativeAnswer(exchange.request_id, n)
    await inference.run(exchange, services, Attempt(order, answer))


def _sampling(wire: TextGenerationIn) -> Sampling:
    """The sampling asked for; null means the endpoint's own default."""
    chosen: dict[str, float | int | None] = {}
    defaults = TextGenerationIn(input="")
    for name in Sampling.__struct_fields__:
        value = getattr(wire, name)
        chosen[name] = getattr(defaults, name) if value is None else value
    return msgspec.convert(chosen, Sampling)
