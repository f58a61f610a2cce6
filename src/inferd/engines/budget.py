"""How many tokens an answer may have: prompt and output share the context."""

from __future__ import annotations

from inferd.errors import ContextLengthExceeded
from inferd.tasks.text_generation import MAX_TOKENS_DEFAULT


def output_budget(context: int, prompt: int, asked: int | None) -> int:
    """Tokens for each choice. Raises ContextLengthExceeded; nothing is ever cut in silence."""
    left = context - prompt
    if left < 1 or (asked is not None and asked > left):
        raise context_exceeded(context, prompt, asked)
    return min(left, MAX_TOKENS_DEFAULT) if asked is None else asked


def context_exceeded(context: int, prompt: int, asked: int | None) -> ContextLengthExceeded:
    """The refusal, with both numbers."""
    parts = f"{prompt} in the prompt" + (f" and {asked} of max_tokens" if asked else "")
    return ContextLengthExceeded(
        f"This model's maximum context length is {context} tokens; the request needs "
        f"{prompt + (asked or 1)} ({parts}).",
        param="messages",
    )
