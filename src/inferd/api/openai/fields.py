"""Fields that chat and plain completions share, with their bounds.

The contract is deepinfra-api 4.1 and 4.4. A value that cannot have its effect here gets a 400 that
names it. Fields outside the contract are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferd.api.generation import Wish, check_depth, fallbacks
from inferd.api.tag import Metadata
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import Constraint, Prompt, Sampling, TextGenerationRequest

StopString = Annotated[str, Meta(min_length=1, max_length=1024)]
MaxTokens = Annotated[int, Meta(ge=1, le=10_000_000)]

SEED_MAX = 2**64 - 1

ModelName = Annotated[str, Meta(min_length=1, max_length=512)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Bias = Annotated[float, Meta(ge=-100, le=100)]


class JsonSchemaFormat(msgspec.Struct, frozen=True):
    """The schema of `response_format`. `strict` makes no difference: it is always kept to."""

    schema: dict[str, Any] | bool | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """What the text must be."""

    type: Literal["text", "json_object", "json_schema", "regex"]
    json_schema: JsonSchemaFormat | None = None
    regex: str | None = None


class CacheOptions(msgspec.Struct, frozen=True):
    """How prompt prefixes are kept. They are kept implicitly, or not at all."""

    mode: Literal["explicit", "implicit"] = "implicit"
    ttl: Literal["5m", "1h"] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """How usage travels in a stream."""

    include_usage: bool | None = None
    """True: in one last chunk without choices. None: on the finish chunk. False: nowhere."""
    continuous_usage_stats: bool | None = None
    """Usage so far on every chunk."""


class SharedFields(msgspec.Struct, frozen=True, kw_only=True):
    """What both completion endpoints take."""

    model: ModelName
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, lt=1000)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=5)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63))] | None = None
    """At most 2⁶⁴; checked in `sampling`, since the decoder's bounds end at 2⁶³."""
    stop: StopString | Annotated[list[StopString], Meta(max_length=16)] | None = None
    n: Annotated[int, Meta(ge=1, le=4)] | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    """Stored with the usage entry, so that cost can be charged back to it."""

    stop_token_ids: Annotated[list[TokenId], Meta(max_length=16)] | None = None
    response_format: ResponseFormat | None = None
    logit_bias: Annotated[dict[str, Bias], Meta(max_length=1024)] | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=256)] | None = None
    prompt_cache_options: CacheOptions | None = None
    service_tier: str | None = None
    fail_fast: bool | None = None
    models: Annotated[list[ModelName], Meta(max_length=4)] | None = None
    ignore_eos: bool | None = None
    metadata: Metadata | None = None


def sampling(fields: SharedFields) -> Sampling:
    """The sampling asked for; null means the default."""
    if fields.seed is not None and fields.seed > SEED_MAX:
        raise BadRequest(f"seed: Expected int <= {SEED_MAX}.", param="seed")
    asked = {
        name: value
        for name in Sampling.__struct_fields__
        if (value := getattr(fields, name)) is not None
    }
    return Sampling(**asked)


def max_tokens(fields: SharedFields) -> int | None:
    """The output budget under either of its two names."""
    if fields.max_completion_tokens is None:
        return fields.max_tokens
    return fields.max_completion_tokens


def stop_strings(fields: SharedFields) -> tuple[str, ...]:
    """Stop strings as a tuple."""
    if fields.stop is None:
        return ()
    return (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop)


def stream_options(fields: SharedFields) -> StreamOptions:
    """Options of a stream; refused on a plain call, as OpenAI does."""
    if fields.stream_options is not None and not fields.stream:
        raise BadRequest("stream_options needs stream: true.", param="stream_options")
    return fields.stream_options or StreamOptions()


def constraint(given: ResponseFormat | None) -> Constraint | None:
    """The format asked for; None for plain text."""
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return Constraint("json_object")
    if given.type == "regex":
        if not given.regex:
            raise BadRequest("regex is missing.", param="response_format.regex")
        return Constraint("regex", pattern=given.regex)
    if given.json_schema is None or given.json_schema.schema is None:
        raise BadRequest("The schema is missing.", param="response_format.json_schema.schema")
    check_depth(given.json_schema.schema, "response_format.json_schema.schema")
    return Constraint("json_schema", schema=given.json_schema.schema)


def logit_bias(fields: SharedFields) -> tuple[tuple[int, float], ...]:
    """Token ids, which are strings on the wire, and what is added to their logits."""
    pairs: list[tuple[int, float]] = []
    for name, value in (fields.logit_bias or {}).items():
        if not (name.isascii() and name.isdecimal() and len(name) <= 10):
            raise BadRequest("The keys of logit_bias are token ids.", param="logit_bias")
        pairs.append((int(name), value))
    return tuple(pairs)


def shared_request(
    fields: SharedFields, prompt: Prompt, *, logprobs: int | None
) -> TextGenerationRequest:
    """The task's request, from what chat and plain completions share."""
    if fields.prompt_cache_options is not None and fields.prompt_cache_options.mode == "explicit":
        raise UnsupportedField(
            "Prompt prefixes are cached by themselves; explicit caching is not supported.",
            param="prompt_cache_options.mode",
        )
    return TextGenerationRequest(
        model=fields.model,
        prompt=prompt,
        max_tokens=max_tokens(fields),
        sampling=sampling(fields),
        stop=stop_strings(fields),
        n=fields.n or 1,
        cache_key=fields.prompt_cache_key or "",
        constraint=constraint(fields.response_format),
        logprobs=logprobs,
        logit_bias=logit_bias(fields),
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        ignore_eos=bool(fields.ignore_eos),
    )


def wish(fields: SharedFields, request: TextGenerationRequest) -> Wish:
    """The wish that a body of the OpenAI dialect makes."""
    return Wish(
        models=fallbacks(fields.model, fields.models),
        request=request,
        dialect="openai",
        streamed=bool(fields.stream),
        end_user=fields.user,
        tag=fields.metadata.tag if fields.metadata else None,
        tier=fields.service_tier,
        fail_fast=bool(fields.fail_fast),
    )
