"""Text generation: what can be asked, and the events of an answer.

Life of an answer: `Started`, then any number of `Progress` (prefill) and `Text`, then one `Done`,
or one `Stopped` if it was cancelled.
With `n` > 1 the `Text` events of the choices interleave.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.tasks.base import Usage

Role = Literal["system", "user", "assistant", "tool"]

FinishReason = Literal["eos", "stop_sequence", "length"]
"""Why a choice ended: the model said so, a stop string matched, or the token budget is spent."""

MAX_TOKENS_DEFAULT = 65_536
"""Output cap when the caller names none (deepinfra-api 4.1), within what the context leaves."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One chat message; parts are already joined to text."""

    role: Role
    content: str
    name: str | None = None


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat"):
    """Messages that the engine renders with the model's own template."""

    messages: tuple[Message, ...]


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """A raw prompt; the caller wrote the template himself."""

    text: str


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is drawn. Bounds are checked where the wire is decoded."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    """Multiplicative; 1 is off."""
    seed: int | None = None


class TextGenerationRequest(msgspec.Struct, frozen=True, tag="text-generation"):
    """One validated request."""

    model: str
    prompt: ChatPrompt | TextPrompt
    max_tokens: int | None = None
    """None: what the context leaves, at most MAX_TOKENS_DEFAULT."""
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    n: int = 1
    cache_scope: str = ""
    """Whose prefix cache may be reused: the account, or "" for a shared one."""

    def prompt_bytes(self) -> int:
        """UTF-8 bytes of all text in the prompt: an upper bound on its tokens, template apart."""
        if isinstance(self.prompt, TextPrompt):
            return len(self.prompt.text.encode("utf-8", "replace"))
        return sum(
            len(m.content.encode("utf-8", "replace")) + len((m.name or "").encode())
            for m in self.prompt.messages
        )

    def message_count(self) -> int:
        """Number of chat messages, 0 for a raw prompt."""
        return len(self.prompt.messages) if isinstance(self.prompt, ChatPrompt) else 0


class Token(msgspec.Struct, frozen=True, array_like=True):
    """One token that the engine produced."""

    id: int | None
    """None where the engine gives no ids."""
    text: str
    """May be empty inside a character that spans several tokens."""
    logprob: float | None = None
    special: bool = False


class Started(msgspec.Struct, frozen=True, array_like=True, tag="started"):
    """The prompt was counted and fits; nothing is computed yet. Nothing is consumed either."""

    prompt_tokens: int
    """Exact length of the prompt in tokens, template included."""
    max_tokens: int
    """Output budget for each choice, resolved against the context."""


class Progress(msgspec.Struct, frozen=True, array_like=True, tag="progress"):
    """Prefill went on; only the usage moved."""

    usage: Usage


class Text(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    """New text of one choice. `usage` is cumulative over all choices."""

    choice: int
    text: str
    """What the client gets. Empty while a stop string may be beginning."""
    tokens: tuple[Token, ...]
    """What the engine produced; a matched stop string is in here and not in `text`."""
    usage: Usage


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The end of all choices; the last event."""

    reasons: tuple[FinishReason, ...]
    """One for each choice, by index."""
    usage: Usage
    seed: int | None = None


class Stopped(msgspec.Struct, frozen=True, array_like=True, tag="stopped"):
    """The request was cancelled; nothing is computed for it any more. The last event then."""

    usage: Usage


Event = Started | Progress | Text | Done | Stopped
