"""Fields that chat and plain completions share: bounds, sampling, and the ones not honoured yet.

The contract is deepinfra-api 4.1 and 4.4. A field of it that has no effect here gets a 400 that
names it, unless its value asks for nothing. Fields outside the contract are ignored.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from inferd.api.fields import NotYet, not_yet
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import Sampling

StopString = Annotated[str, Meta(min_length=1, max_length=1024)]
MaxTokens = Annotated[int, Meta(ge=1, le=10_000_000)]

SEED_MAX = 2**64 - 1

_HARMLESS: dict[str, tuple[object, ...]] = {
    "tool_choice": ("none", "auto"),
    "service_tier": ("default", "standard_only"),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "best_of": (1,),
}
"""Values that ask for what happens anyway; every empty or false one does too."""


class StreamOptions(msgspec.Struct, frozen=True):
    """How usage travels in a stream."""

    include_usage: bool | None = None
    """True: in one last chunk without choices. None: on the finish chunk. False: nowhere."""
    continuous_usage_stats: bool | None = None
    """Usage so far on every chunk."""


class SharedFields(msgspec.Struct, frozen=True, kw_only=True):
    """What both completion endpoints take."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
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

    # Known, and not honoured yet:
    stop_token_ids: NotYet = None
    response_format: NotYet = None
    logprobs: NotYet = None
    top_logprobs: NotYet = None
    logit_bias: NotYet = None
    prompt_cache_key: NotYet = None
    prompt_cache_options: NotYet = None
    service_tier: NotYet = None
    fail_fast: NotYet = None
    models: NotYet = None
    ignore_eos: NotYet = None


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


def refuse_unsupported(fields: SharedFields) -> None:
    """Raise UnsupportedField for the first field that asks for what is not there."""
    for name in not_yet(type(fields)):
        value = getattr(fields, name)
        if _asks(name, value) and value not in _HARMLESS.get(name, ()):
            raise UnsupportedField(f"{name} is not supported yet.", param=name)


def _asks(name: str, value: object) -> bool:
    # Zero log-probabilities beside the chosen token's own are still log-probabilities.
    return bool(value) or (name == "logprobs" and value == 0 and value is not False)
