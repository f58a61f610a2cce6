"""The response object of the Responses API: output items, usage, and what the request asked for."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.api.openai.logprobs import TokenLogprob
from inferd.api.openai.responses_in import (
    ResponseIn,
    ResponseTool,
    ResponseToolChoice,
    TextFormat,
)
from inferd.money import NanoUsd, usd
from inferd.tasks.base import Usage

Status = Literal["in_progress", "completed", "incomplete"]


class OutputText(msgspec.Struct, frozen=True, tag_field="type", tag="output_text"):
    """Text of a message."""

    text: str
    annotations: list[str] = []
    """Always empty."""
    logprobs: list[TokenLogprob] = []


class ReasoningText(msgspec.Struct, frozen=True, tag_field="type", tag="reasoning_text"):
    """What the model thought."""

    text: str


class ReasoningItem(msgspec.Struct, frozen=True, tag_field="type", tag="reasoning"):
    """The model's thinking, whole."""

    id: str
    content: list[ReasoningText]
    summary: list[str] = []
    """Always empty."""


class MessageItem(msgspec.Struct, frozen=True, tag_field="type", tag="message"):
    """What the model said."""

    id: str
    status: Status
    content: list[OutputText]
    role: str = "assistant"


class CallItem(msgspec.Struct, frozen=True, tag_field="type", tag="function_call"):
    """A call that the model wants answered."""

    id: str
    call_id: str
    name: str
    arguments: str
    """JSON text of an object."""
    status: Status


OutputItem = ReasoningItem | MessageItem | CallItem


class InputDetails(msgspec.Struct, frozen=True):
    """What `input_tokens` is made of."""

    cached_tokens: int
    cache_write_tokens: int = 0
    """Always 0: writing to the cache is not billed apart."""


class OutputDetails(msgspec.Struct, frozen=True):
    """What `output_tokens` is made of."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True):
    """Units of one response and what they cost."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int
    estimated_cost: float
    """Dollars."""


class ResponseError(msgspec.Struct, frozen=True):
    """Why a response failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ReasoningEcho(msgspec.Struct, frozen=True):
    """The reasoning asked for."""

    effort: str | None = None
    summary: str | None = None


class TextEcho(msgspec.Struct, frozen=True):
    """The text asked for."""

    format: TextFormat
    verbosity: str = "medium"


class ResponseOut(msgspec.Struct, frozen=True, kw_only=True):
    """The response body of a plain call; in a stream, its first and its last event hold one."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    output: list[OutputItem] = []
    usage: ResponseUsage | None = None
    instructions: str | None
    metadata: dict[str, str]
    tools: list[ResponseTool]
    tool_choice: str | ResponseToolChoice
    parallel_tool_calls: bool
    max_tool_calls: int | None
    text: TextEcho
    reasoning: ReasoningEcho
    max_output_tokens: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    service_tier: str
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    truncation: str = "disabled"
    background: bool = False
    store: bool = False
    previous_response_id: str | None = None


def response_started(
    wire: ResponseIn, *, request_id: str, created_at: int, tier: str, temperature: float = 1.0
) -> ResponseOut:
    """The object before any output. `temperature`: of the model, for who names none."""
    text, reasoning = wire.text, wire.reasoning
    return ResponseOut(
        id="resp_" + request_id,
        created_at=created_at,
        model=wire.model,
        instructions=wire.instructions,
        metadata=wire.metadata or {},
        tools=wire.tools or [],
        tool_choice=wire.tool_choice or "auto",
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        max_tool_calls=wire.max_tool_calls,
        text=TextEcho((text and text.format) or TextFormat("text")),
        reasoning=ReasoningEcho(reasoning.effort, reasoning.summary)
        if reasoning
        else ReasoningEcho(),
        max_output_tokens=wire.max_output_tokens,
        temperature=temperature if wire.temperature is None else wire.temperature,
        top_p=1.0 if wire.top_p is None else wire.top_p,
        top_logprobs=wire.top_logprobs or 0,
        service_tier=tier,
        user=wire.user,
        safety_identifier=wire.safety_identifier,
        prompt_cache_key=wire.prompt_cache_key,
    )


def response_usage(usage: Usage, cost: NanoUsd) -> ResponseUsage:
    """The usage object of the Responses API."""
    return ResponseUsage(
        input_tokens=usage.input_tokens,
        input_tokens_details=InputDetails(usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputDetails(usage.reasoning_tokens),
        total_tokens=usage.input_tokens + usage.output_tokens,
        estimated_cost=usd(cost),
    )
