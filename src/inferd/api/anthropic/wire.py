"""What Anthropic's Messages API takes and gives (deepinfra-api 5).

Blocks and tools are open structs, so that a kind that is not taken can be named in the refusal.
`cache_control` is accepted everywhere and needs nothing: prefixes are cached without being asked.
Fields outside the contract are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from inferd.api.generation import FALLBACKS_MAX

MESSAGES_MAX = 4096
BLOCKS_MAX = 4096
TOOLS_SHOWN_MAX = 4096
"""What the decoder takes at all; how many tools may be used is checked with the tools."""

ModelName = Annotated[str, Meta(min_length=1, max_length=512)]


class Source(msgspec.Struct, frozen=True):
    """Where a picture comes from."""

    type: Annotated[str, Meta(max_length=64)] = ""
    """base64 or url."""
    data: str | None = None
    url: str | None = None
    media_type: str | None = None
    """Not needed: what it is shows in its bytes."""


class TextBlock(msgspec.Struct, frozen=True):
    """A piece of a system prompt or of a tool's result: text, or a kind that is refused."""

    type: str
    text: str | None = None


class Block(TextBlock, frozen=True):
    """A piece of a message's content. Which fields count depends on `type`."""

    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    """Of a tool_use: the arguments."""
    tool_use_id: str | None = None
    content: str | Annotated[list[TextBlock], Meta(max_length=BLOCKS_MAX)] | None = None
    """Of a tool_result."""
    is_error: bool | None = None
    source: Source | None = None
    """Of an image."""
    thinking: str | None = None


class Turn(msgspec.Struct, frozen=True):
    """One message. Neighbours of one role are one turn."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Meta(max_length=BLOCKS_MAX)]


class AnthropicTool(msgspec.Struct, frozen=True):
    """A function that the model may call. Other kinds than custom ones are refused."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class AnthropicToolChoice(msgspec.Struct, frozen=True):
    """Whether a tool must be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct, frozen=True):
    """Whether the model thinks before it answers. How long is its own matter."""

    type: Literal["enabled", "disabled", "adaptive"] | None = None
    budget_tokens: int | None = None
    enabled: bool | None = None
    """The older spelling of `type`."""


class OutputFormat(msgspec.Struct, frozen=True):
    """What the text must be."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True):
    """What the answer is like."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    """How much the model thinks, if it does."""
    format: OutputFormat | None = None


class Metadata(msgspec.Struct, frozen=True):
    """About the request."""

    user_id: Annotated[str, Meta(max_length=512)] | None = None
    """Stored with the usage entry, so that cost can be charged back to it."""


class CountTokensIn(msgspec.Struct, frozen=True, kw_only=True):
    """The body of count_tokens: what makes up a prompt."""

    model: ModelName
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MESSAGES_MAX)]
    system: str | Annotated[list[TextBlock], Meta(max_length=BLOCKS_MAX)] | None = None
    tools: Annotated[list[AnthropicTool], Meta(max_length=TOOLS_SHOWN_MAX)] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


class MessagesIn(CountTokensIn, frozen=True, kw_only=True):
    """The body of messages."""

    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    """None: what the context leaves. Anthropic itself requires it."""
    stop_sequences: (
        Annotated[list[Annotated[str, Meta(min_length=1, max_length=1024)]], Meta(max_length=16)]
        | None
    ) = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """-1 and 0 are off."""
    output_format: OutputFormat | None = None
    """The older spelling of `output_config.format`."""
    metadata: Metadata | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=256)] | None = None
    service_tier: str | None = None
    fail_fast: bool | None = None
    models: Annotated[list[ModelName], Meta(max_length=FALLBACKS_MAX)] | None = None


class OutputTokensDetails(msgspec.Struct, frozen=True):
    """What `output_tokens` is made of."""

    thinking_tokens: int


class AnthropicUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Units so far. The three kinds of input add up to the prompt."""

    input_tokens: int
    """Those that no cache served."""
    cache_creation_input_tokens: int = 0
    """Always 0: filling the cache costs nothing of its own."""
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    estimated_cost: float | UnsetType = UNSET
    """Dollars; on the final usage."""


class ThinkingOut(msgspec.Struct, frozen=True, tag="thinking"):
    """What the model thought."""

    thinking: str
    signature: str = ""
    """Nothing is signed here; clients expect the field."""


class TextOut(msgspec.Struct, frozen=True, tag="text"):
    """What the model said."""

    text: str


class ToolUseOut(msgspec.Struct, frozen=True, tag="tool_use"):
    """A call that the model wants answered."""

    id: str
    name: str
    input: dict[str, Any]


BlockOut = ThinkingOut | TextOut | ToolUseOut


class MessagesOut(msgspec.Struct, frozen=True, tag="message", kw_only=True):
    """The response body of a plain call, and the beginning of a stream."""

    id: str
    role: str = "assistant"
    model: str
    content: list[BlockOut]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: AnthropicUsage


class CountTokensOut(msgspec.Struct, frozen=True):
    """The answer of count_tokens."""

    input_tokens: int
