"""One choice of a request, computed by a llama.cpp server in a thread of its own.

The thread blocks in the server; the callback sees every chunk, does all that must be exact at
once (context check, stop strings, counting) and hands events to the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from inferd.engines.budget import context_exceeded, output_budget
from inferd.engines.stop_strings import StopStrings
from inferd.errors import ContextLengthExceeded, EngineFailed, InferdError
from inferd.tasks.text_generation import FinishReason, Token

Chunk = dict[str, Any]
"""llama.cpp's own JSON, decoded."""


class LlamaServer(Protocol):
    """The one call of `xllamacpp.Server` that is used."""

    def handle_completions(self, body: Chunk, callback: Callable[[Chunk], bool]) -> Chunk | None:
        """Compute; the callback gets each chunk and returns True to stop."""
        ...


class Counted(msgspec.Struct, frozen=True):
    """The prompt was counted and fits."""

    prompt_tokens: int
    max_tokens: int


class Moved(msgspec.Struct, frozen=True):
    """Tokens so far: prompt processed, of them from the cache, and output."""

    processed: int
    cached: int
    output: int
    text: str = ""
    tokens: tuple[Token, ...] = ()


class Ended(msgspec.Struct, frozen=True):
    """The choice is over."""

    reason: FinishReason | None
    """None: stopped on request."""
    error: InferdError | None = None


Report = Counted | Moved | Ended


class LlamaChoice:
    """Runs once, in a thread."""

    def __init__(
        self,
        body: Chunk,
        *,
        context_length: int,
        max_tokens: int | None,
        stop: tuple[str, ...],
        report: Callable[[Report], None],
    ) -> None:
        self.cancel = threading.Event()
        """Set: the computation stops at the next chunk."""
        self._body = body
        self._context_length = context_length
        self._asked = max_tokens
        self._stops = StopStrings(stop)
        self._report = report
        self._processed = self._cached = self._output = 0
        self._counted = False
        self._reason: FinishReason | None = None
        self._error: InferdError | None = None

    def run(self, server: LlamaServer) -> None:
        """Compute until the end. Reports `Ended` last, whatever happens."""
        try:
            answer = server.handle_completions(self._body, self._on_chunk)
            if isinstance(answer, dict) and self._error is None:
                self._fail(answer)
        except Exception as error:  # noqa: BLE001 a thread has no caller that could see it
            self._error = EngineFailed("llama.cpp failed.", detail=repr(error))
        if self._reason is None and self._error is None and not self.cancel.is_set():
            self._error = EngineFailed("llama.cpp ended without an answer.")
        if rest := self._stops.flush():
            self._moved(rest, ())
        self._report(Ended(self._reason, self._error))

    def _on_chunk(self, chunk: Chunk) -> bool:
        # llama.cpp swallows exceptions of callbacks, so none may leave here unseen.
        try:
            self._read(chunk)
        except Exception as error:  # noqa: BLE001 see above
            self._error = EngineFailed("llama.cpp sent something unexpected.", detail=repr(error))
        over = self._stops.matched is not None or self._error is not None
        return over or self.cancel.is_set()

    def _read(self, chunk: Chunk) -> None:
        if "error" in chunk:
            self._fail(chunk)
        elif "prompt_progress" in chunk:
            self._read_progress(chunk["prompt_progress"])
        elif self._stops.matched is None:
            self._read_text(chunk)

    def _read_progress(self, progress: Chunk) -> None:
        total, processed = int(progress["total"]), int(progress["processed"])
        if not self._counted:
            # The first report comes before the first step; nothing is consumed yet.
            self._counted = True
            self._count(total)
            return
        self._processed, self._cached = processed, int(progress["cache"])
        self._moved("", ())

    def _count(self, prompt: int) -> None:
        try:
            budget = output_budget(self._context_length, prompt, self._asked)
        except ContextLengthExceeded as error:
            self._error = error
        else:
            self._report(Counted(prompt, budget))

    def _read_text(self, chunk: Chunk) -> None:
        choice = chunk["choices"][0]
        before = self._output
        self._output = int(chunk.get("timings", {}).get("predicted_n", before))
        if usage := chunk.get("usage"):
            self._output = int(usage["completion_tokens"])
            self._processed = int(usage["prompt_tokens"])
        text: str = choice["text"]
        if text or self._output > before:
            shown = self._stops.feed(text)
            self._moved(shown, _tokens(choice, text, self._output - before))
        if self._stops.matched is not None:
            self._reason = "stop_sequence"
        elif choice["finish_reason"] is not None:
            self._reason = "length" if choice["finish_reason"] == "length" else "eos"

    def _moved(self, text: str, tokens: tuple[Token, ...]) -> None:
        self._report(Moved(self._processed, self._cached, self._output, text, tokens))

    def _fail(self, answer: Chunk) -> None:
        error = answer.get("error", answer)
        if error.get("type") == "exceed_context_size_error" or "n_prompt_tokens" in error:
            prompt = int(error.get("n_prompt_tokens", self._context_length))
            self._error = context_exceeded(self._context_length, prompt, self._asked)
        else:
            self._error = EngineFailed("llama.cpp refused the request.", detail=str(error)[:500])


def _tokens(choice: Chunk, text: str, count: int) -> tuple[Token, ...]:
    """The tokens behind a chunk. Only the last of a character's tokens comes with its id."""
    logprobs: Chunk = choice.get("logprobs") or {}
    found: list[Chunk] = logprobs.get("content") or []
    if not found:
        return (Token(None, text),) if text else ()
    last = found[-1]
    inside = (Token(None, ""),) * max(count - 1, 0)
    return (*inside, Token(int(last["id"]), text, float(last["logprob"])))
