"""What OpenAI-compatible servers stream: lines of events, cut anywhere by the network."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from inferd.errors import UpstreamFailed

LINE_BYTES_MAX = 4 * 1024 * 1024


class PromptDetails(msgspec.Struct, frozen=True):
    """Of `prompt_tokens`, those from a cache."""

    cached_tokens: int | None = None


class UsageIn(msgspec.Struct, frozen=True):
    """Usage so far."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None


class DeltaIn(msgspec.Struct, frozen=True):
    """New text of a chat choice."""

    content: str | None = None


class ChoiceIn(msgspec.Struct, frozen=True):
    """One choice's part of a chunk."""

    index: int = 0
    delta: DeltaIn | None = None
    text: str | None = None
    finish_reason: str | None = None


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
