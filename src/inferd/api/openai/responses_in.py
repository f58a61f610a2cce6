"""The body of POST /v1/responses (deepinfra-api 4.11) and the bounds of its fields.

Items and tools of every type share one Struct each, so that what is refused can be named by its
type rather than by the first field that looks strange.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferd.errors import UnsupportedField
from inferd.tasks.text_generation import Sampling

ITEMS_MAX = 4096
TOOLS_MAX = 128

Short = Annotated[str, Meta(max_length=256)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
MetadataKey = Annotated[str, Meta(max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]


class InputPart(msgspec.Struct, frozen=True):
    """A piece of an item's content: text, a refusal of an earlier answer, a picture."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    """http(s) or a data URL."""
    file_id: str | None = None
    file_data: str | None = None
    """A picture as a data URL or base64."""
    file_url: str | None = None
    filename: str | None = None
    """Not needed."""
    detail: str | None = None
    """Without effect: the model decides how fine it looks."""


Parts = Annotated[list[InputPart], Meta(max_length=ITEMS_MAX)]


class InputItem(msgspec.Struct, frozen=True):
    """One item of the input: a message, a call, the output of a call, or earlier reasoning."""

    type: Annotated[str, Meta(max_length=64)] | None = None
    """None: a message, if there is a role."""
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | Parts | None = None
    """Of a message or of reasoning."""
    summary: Parts | None = None
    """Of reasoning; read where it has no content."""
    call_id: Short | None = None
    name: Short | None = None
    """Of a function_call."""
    arguments: str | dict[str, Any] | None = None
    """Of a function_call: JSON text."""
    output: str | Parts | dict[str, Any] | None = None
    """Of a function_call_output: text or text parts."""


class ResponseTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function, or a namespace of functions."""

    type: Annotated[str, Meta(max_length=64)]
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments."""
    strict: bool | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=TOOLS_MAX)] | None = None
    """Of a namespace."""


class AllowedTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function that may be called, by name."""

    type: Annotated[str, Meta(max_length=64)]
    name: str | None = None


class ResponseToolChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One function that must be called, or the functions that may be."""

    type: Annotated[str, Meta(max_length=64)]
    name: str | None = None
    """Of a function."""
    mode: Literal["auto", "required"] | None = None
    """Of allowed_tools."""
    tools: Annotated[list[AllowedTool], Meta(max_length=TOOLS_MAX)] | None = None
    """Of allowed_tools."""


class TextFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the text of the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Meta(max_length=64)] | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    """For json_schema."""
    strict: bool | None = None


class ResponseText(msgspec.Struct, frozen=True):
    """How the answer's text is to be."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    """Only medium: nothing here makes a model talk more or less."""


class ResponseReasoning(msgspec.Struct, frozen=True):
    """How much the model thinks. Its thoughts are shown whole, whatever summary was asked for."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseStreamOptions(msgspec.Struct, frozen=True):
    """Accepted; events carry no obfuscation."""

    include_obfuscation: bool | None = None


class ResponseCacheOptions(msgspec.Struct, frozen=True):
    """Only implicit caching."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: str | None = None


class ResponseIn(msgspec.Struct, frozen=True, kw_only=True):
    """The request body."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=ITEMS_MAX)]
    instructions: str | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=TOOLS_MAX)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=0)] | None = None
    """Limits calls of built-in tools, of which there are none: no effect."""
    text: ResponseText | None = None
    reasoning: ResponseReasoning | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, lt=1000)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=5)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: Annotated[list[str], Meta(max_length=64)] | None = None
    """`message.output_text.logprobs` has an effect; other names are ignored."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    user: Short | None = None
    safety_identifier: Short | None = None
    """Stands in for `user` where that is missing."""
    store: bool | None = None
    """Accepted; nothing is stored."""
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: str | None = None
    fail_fast: bool | None = None
    models: Annotated[list[str], Meta(max_length=4)] | None = None
    stop_token_ids: (
        Annotated[list[Annotated[int, Meta(ge=0, lt=2**31)]], Meta(max_length=16)] | None
    ) = None
    ignore_eos: bool | None = None
    chat_template_kwargs: dict[str, str | int | bool | None] | None = None
    continue_final_message: bool | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_options: ResponseCacheOptions | None = None

    # They need answers that were stored:
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
    background: Any = None

    @property
    def logprobs(self) -> int | None:
        """How many alternatives stand beside each token; None: no log-probabilities at all."""
        if self.top_logprobs:
            return self.top_logprobs
        return 0 if "message.output_text.logprobs" in (self.include or ()) else None

    @property
    def end_user(self) -> str | None:
        """The caller's own name for who asks."""
        return self.user or self.safety_identifier


def refuse(wire: ResponseIn) -> None:
    """Raise UnsupportedField for what this server does not do."""
    for name in ("previous_response_id", "conversation", "prompt", "background"):
        if getattr(wire, name):
            raise UnsupportedField(
                f"{name} is not supported: nothing is stored here. Send the whole input.",
                param=name,
            )
    if wire.truncation == "auto":
        raise UnsupportedField(
            "truncation auto is not supported: nothing is cut in silence.", param="truncation"
        )
    if wire.text is not None and wire.text.verbosity in ("low", "high"):
        raise UnsupportedField("Only verbosity medium is supported.", param="text.verbosity")
    options = wire.prompt_cache_options
    if options is not None and options.mode == "explicit":
        raise UnsupportedField(
            "Only implicit prompt caching is supported.", param="prompt_cache_options.mode"
        )


def sampling(wire: ResponseIn) -> Sampling:
    """The sampling asked for; null means the default."""
    names = ("temperature", "top_p", "min_p", "top_k", "repetition_penalty")
    asked = {name: value for name in names if (value := getattr(wire, name)) is not None}
    return Sampling(**asked)
