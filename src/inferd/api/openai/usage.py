"""OpenAI's usage object, with DeepInfra's `estimated_cost` in it."""

from __future__ import annotations

import msgspec

from inferd.money import NanoUsd, usd
from inferd.tasks.base import Usage


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """What `prompt_tokens` is made of."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    """What `completion_tokens` is made of."""

    reasoning_tokens: int


class UsageOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Units of one request and what they cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated_cost: float
    """Dollars."""
    prompt_tokens_details: PromptTokensDetails | None
    completion_tokens_details: CompletionTokensDetails | None = None
    """Only of models that think."""


def usage_out(usage: Usage, cost: NanoUsd) -> UsageOut:
    """The object as it stands in bodies and chunks."""
    return UsageOut(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        estimated_cost=usd(cost),
        prompt_tokens_details=PromptTokensDetails(usage.cached_tokens),
        completion_tokens_details=(
            CompletionTokensDetails(usage.reasoning_tokens) if usage.reasoning_tokens else None
        ),
    )
