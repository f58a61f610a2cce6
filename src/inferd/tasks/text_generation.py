"""Text generation: what can be asked, and the events of an answer.

Life of an answer: `Started`, then any number of `Progress` (prefill) and `Text`, then one `Done`,
or one `Stopped` if it was cancelled.
With `n` > 1 the `Text` events of the choices interleave.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from inferd.tasks.base import Usage
from inferd.tasks.media import Media

Role = Literal["system", "user", "assistant", "tool"]

FinishReason = Literal["eos", "stop_sequence", "length", "tool_calls"]
"""Why a choice ended: the model said so, a stop string or token matched, the token budget is spent,
or the model wants its tool calls answered."""

MAX_TOKENS_DEFAULT = 65_536
"""Output cap when the caller names none (deepinfra-api 4.1), within what the context leaves."""


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model made earlier in the conversation."""

    id: str
    name: str
    arguments: str
    """JSON text of an object."""


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """A picture, recording or film in a message."""

    at: int
    """It stands before this character of the message's content."""
    media: Media


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One chat message; parts are already joined to text."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """In a tool's message: which call it answers."""
    reasoning_content: str | None = None
    media: tuple[Placed, ...] = ()
    """In the order of their places."""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    """JSON Schema of the arguments."""
    strict: bool = False
    """Refuse keywords that cannot be enforced; else they are left out of what is enforced."""


class ToolUse(msgspec.Struct, frozen=True):
    """Which tools there are and whether one must be called."""

    tools: tuple[Tool, ...]
    required: bool = False
    """At least one of `tools` must be called; a named choice leaves only that one in there."""
    parallel: bool | None = None
    """More than one call in an answer; None: where the model's own template knows tools."""


class ChatPrompt(msgspec.Struct, frozen=True, omit_defaults=True, tag="chat"):
    """Messages that the engine renders with the model's own template."""

    messages: tuple[Message, ...]
    tool_use: ToolUse | None = None
    template_kwargs: dict[str, str | int | bool] = {}
    """Allow-listed variables of the template, such as `enable_thinking`."""
    continue_final: bool = False
    """The last message is the beginning of the answer."""


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """A raw prompt; the caller wrote the template himself."""

    text: str


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """A raw prompt as token ids of the model's own vocabulary."""

    ids: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


class Constraint(msgspec.Struct, frozen=True):
    """What the text of an answer must match."""

    kind: Literal["json_object", "json_schema", "regex"]
    schema: dict[str, Any] | bool | None = None
    """For json_schema."""
    pattern: str = ""
    """For regex."""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is drawn. Bounds are checked where the wire is decoded."""

    temperature: float | None = None
    """None: what the model's card says, else 1."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    """Multiplicative; 1 is off."""
    seed: int | None = None


class TextGenerationRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="text-generation"):
    """One validated request."""

    model: str
    prompt: Prompt
    max_tokens: int | None = None
    """None: what the context leaves, at most MAX_TOKENS_DEFAULT."""
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    n: int = 1
    cache_scope: str = ""
    """Whose prefix cache may be reused: the account, or "" for a shared one."""
    cache_key: str = ""
    """Requests of one scope that share a long prefix carry one key."""
    constraint: Constraint | None = None
    logprobs: int | None = None
    """Alternatives listed beside each token, 0 to 20; None: none are needed."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, what is added to its logit)."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    echo: bool = False
    """The answer begins with the prompt."""

    def prompt_bytes(self) -> int:
        """UTF-8 bytes of all text in the prompt: an upper bound on its tokens, template apart."""
        return prompt_bytes(self.prompt)

    def media_count(self) -> int:
        """Number of pictures, recordings and films."""
        return media_count(self.prompt)

    def media(self) -> tuple[Media, ...]:
        """All of them, in their order."""
        if not isinstance(self.prompt, ChatPrompt):
            return ()
        return tuple(one.media for message in self.prompt.messages for one in message.media)

    def message_count(self) -> int:
        """Number of chat messages, 0 for a raw prompt."""
        return len(self.prompt.messages) if isinstance(self.prompt, ChatPrompt) else 0


def media_count(prompt: Prompt) -> int:
    """Number of pictures, recordings and films in a prompt."""
    if not isinstance(prompt, ChatPrompt):
        return 0
    return sum(len(message.media) for message in prompt.messages if message.media)


def prompt_bytes(prompt: Prompt) -> int:
    """UTF-8 bytes of all text in a prompt, tool definitions included; token ids count as one."""
    if isinstance(prompt, TextPrompt):
        return _text_bytes(prompt.text)
    if isinstance(prompt, TokenPrompt):
        return len(prompt.ids)
    size = sum(_message_bytes(message) for message in prompt.messages)
    if prompt.tool_use is not None:
        # The teaching text around them, and each definition once.
        size += TOOLS_ALLOWANCE_BYTES + len(msgspec.json.encode(prompt.tool_use.tools)) * 2
    return size


TOOLS_ALLOWANCE_BYTES = 1024
CALL_ALLOWANCE_BYTES = 64


def _message_bytes(message: Message) -> int:
    size = _text_bytes(message.content)
    if message.name is not None:
        size += _text_bytes(message.name)
    if message.reasoning_content is not None:
        size += _text_bytes(message.reasoning_content)
    for call in message.tool_calls:
        size += CALL_ALLOWANCE_BYTES + _text_bytes(call.name) + _text_bytes(call.arguments)
    return size + CALL_ALLOWANCE_BYTES if message.role == "tool" else size


def _text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


class TokenizeRequest(msgspec.Struct, frozen=True, tag="tokenize"):
    """Asks how many tokens a prompt has, and which."""

    model: str
    prompt: Prompt
    add_special: bool = True
    """Put the begin token before a raw prompt, as a completion would."""


class DetokenizeRequest(msgspec.Struct, frozen=True, tag="detokenize"):
    """Asks which text some tokens make."""

    model: str
    ids: tuple[int, ...]


class Token(msgspec.Struct, frozen=True, array_like=True):
    """One token that the engine produced."""

    id: int | None
    """None where the engine gives no ids."""
    text: str
    """May be empty inside a character that spans several tokens."""
    logprob: float | None = None
    special: bool = False
    top: tuple[tuple[int, str, float], ...] = ()
    """(id, text, logprob) of the likeliest tokens here, the likeliest first."""


class CallDelta(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a tool call. Pieces of `arguments` join to the JSON text of an object."""

    index: int
    """Which call of the choice, from 0."""
    id: str
    """The same on every piece."""
    name: str
    """On the first piece; empty after it."""
    arguments: str


class Started(msgspec.Struct, frozen=True, array_like=True, tag="started"):
    """The prompt was counted and fits; nothing is computed yet. Nothing is consumed either."""

    prompt_tokens: int
    """Exact length of the prompt in tokens, template included."""
    max_tokens: int
    """Output budget for each choice, resolved against the context."""


class Text(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    """New text of one choice. `usage` is cumulative over all choices."""

    choice: int
    text: str
    """What the client gets. Empty while a stop string may be beginning."""
    tokens: tuple[Token, ...]
    """What the engine produced; a matched stop string is in here and not in `text`."""
    usage: Usage
    reasoning: str = ""
    """New text of what the model thinks before it answers."""
    calls: tuple[CallDelta, ...] = ()


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The end of all choices; the last event."""

    reasons: tuple[FinishReason, ...]
    """One for each choice, by index."""
    usage: Usage
    seed: int | None = None
    stopped_at: tuple[str | None, ...] = ()
    """The stop string that ended each choice, by index; empty where none was asked for."""


class Tokenized(msgspec.Struct, frozen=True, array_like=True, tag="tokenized"):
    """The answer to a TokenizeRequest."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    context_length: int


class Detokenized(msgspec.Struct, frozen=True, array_like=True, tag="detokenized"):
    """The answer to a DetokenizeRequest."""

    text: str


Event = Started | Text | Done | Tokenized | Detokenized
"""What text generation says, beside Progress and Stopped of every task."""
