"""What OpenAI-compatible servers stream: lines of events, cut anywhere by the network."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from inferd.errors import UpstreamFailed
from inferd.tasks.text_generation import Token

LINE_BYTES_MAX = 4 * 1024 * 1024


class PromptDetails(msgspec.Struct, frozen=True):
    """Of `prompt_tokens`, those from a cache."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct, frozen=True):
    """Of `completion_tokens`, those of the thinking."""

    reasoning_tokens: int | None = None


class UsageIn(msgspec.Struct, frozen=True):
    """Usage so far."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    @property
    def cached(self) -> int:
        """Prompt tokens from a cache."""
        details = self.prompt_tokens_details
        return 0 if details is None else details.cached_tokens or 0

    @property
    def reasoned(self) -> int:
        """Output tokens of the thinking."""
        details = self.completion_tokens_details
        return 0 if details is None else details.reasoning_tokens or 0


class FunctionIn(msgspec.Struct, frozen=True):
    """A piece of what is called."""

    name: str | None = None
    arguments: str | None = None


class CallIn(msgspec.Struct, frozen=True):
    """A piece of a tool call."""

    index: int = 0
    id: str | None = None
    function: FunctionIn = FunctionIn()


class DeltaIn(msgspec.Struct, frozen=True):
    """New output of a chat choice."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallIn] | None = None


class TopIn(msgspec.Struct, frozen=True):
    """A token that could have stood there."""

    token: str
    logprob: float


class TokenIn(TopIn, frozen=True):
    """A token with its logprob."""

    top_logprobs: list[TopIn] = []


class LogprobsIn(msgspec.Struct, frozen=True):
    """Of a chat, `content`; of a completion, parallel lists."""

    content: list[TokenIn] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class ChoiceIn(msgspec.Struct, frozen=True):
    """One choice's part of a chunk."""

    index: int = 0
    delta: DeltaIn | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: LogprobsIn | None = None

    def tokens(self, text: str) -> list[Token]:
        """The tokens behind the text: as told, else one for the whole of it. No ids."""
        told = self.logprobs
        if told is None:
            return [Token(None, text)] if text else []
        if told.content is not None:
            return [
                Token(
                    None,
                    one.token,
                    one.logprob,
                    top=tuple((-1, top.token, top.logprob) for top in one.top_logprobs),
                )
                for one in told.content
            ]
        names, values = told.tokens or [], told.token_logprobs or []
        tops = told.top_logprobs or [None] * len(names)
        return [
            Token(None, name, value, top=tuple((-1, n, v) for n, v in (top or {}).items()))
            for name, value, top in zip(names, values, tops, strict=False)
        ]


class Chunk(msgspec.Struct, frozen=True):
    """One event. Errors may have any shape."""

    choices: list[ChoiceIn] = []
    usage: UsageIn | None = None
    error: Any = None
    error_message: Any = None


class ErrorIn(msgspec.Struct, frozen=True):
    """An error body, in OpenAI's, DeepInfra's or FastAPI's shape."""

    error: Any = None
    detail: Any = None
    message: Any = None

    def sentence(self) -> str:
        """The message wherever it stands."""
        for place in (self.error, self.detail, self.message):
            if isinstance(place, str):
                return place
            fields = _fields(place)
            inner = fields.get("message") or fields.get("error")
            if isinstance(inner, str):
                return inner
        return ""

    def code(self) -> str | None:
        """OpenAI's `error.code`."""
        found = _fields(self.error).get("code")
        return found if isinstance(found, str) else None


def _fields(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


_CHUNK = msgspec.json.Decoder(Chunk)


class SseLines:
    """Cuts bytes into chunks; None stands for `[DONE]`. Comments and other fields are skipped."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, received: bytes) -> list[Chunk | None]:
        """Chunks that are whole now. Raises UpstreamFailed for what is no JSON."""
        *lines, self._pending = (self._pending + received).split(b"\n")
        if len(self._pending) > LINE_BYTES_MAX:
            raise UpstreamFailed("The model server sent a line without end.")
        found: list[Chunk | None] = []
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            content = line[5:].strip()
            if content == b"[DONE]":
                found.append(None)
            elif content:
                found.append(_decode(content))
        return found


def _decode(content: bytes) -> Chunk:
    try:
        return _CHUNK.decode(content)
    except msgspec.DecodeError as error:
        raise UpstreamFailed(
            "The model server sent something that is no chunk.", detail=str(error)
        ) from error
