"""One choice of a request, computed by a llama.cpp server in a thread of its own.

The thread blocks in the server; the callback sees every chunk, does all that must be exact at
once (context check, stop strings, counting) and hands events to the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from inferd.engines.answer_parser import AnswerParser, Parsed
from inferd.engines.budget import context_exceeded, output_budget
from inferd.engines.grammar import Follower
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
    thought: int
    """Output tokens that belong to the thinking."""
    parsed: Parsed = Parsed()
    tokens: tuple[Token, ...] = ()


class Ended(msgspec.Struct, frozen=True):
    """The choice is over."""

    reason: FinishReason | None
    """None: stopped on request."""
    stopped_at: str | None = None
    error: InferdError | None = None


Report = Counted | Moved | Ended


class ChoiceOptions(msgspec.Struct, frozen=True):
    """What happens to the text of a choice besides being computed."""

    context_length: int
    max_tokens: int | None
    """As asked for."""
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    lists_top: bool = False
    """Tokens carry their alternatives."""
    grammar: str = ""
    """The text is checked against it."""
    parses: bool = False
    """Thinking and calls are taken out of the text."""
    thinks: bool = False
    in_thought: bool = False
    tools: bool = False


class LlamaChoice:
    """Runs once, in a thread."""

    def __init__(
        self, body: Chunk, options: ChoiceOptions, report: Callable[[Report], None]
    ) -> None:
        self.cancel = threading.Event()
        """Set: the computation stops at the next chunk."""
        self._body = body
        self._options = options
        self._stops = StopStrings(options.stop)
        self._follower = Follower(options.grammar) if options.grammar else None
        self._parser = (
            AnswerParser(thinks=options.thinks, in_thought=options.in_thought, tools=options.tools)
            if options.parses
            else None
        )
        self._report = report
        self._processed = self._cached = self._output = self._thought = 0
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
        self._flush()
        if self._reason == "eos" and self._parser is not None and self._parser.calls:
            self._reason = "tool_calls"
        self._report(Ended(self._reason, self._stops.matched, self._error))

    def _flush(self) -> None:
        """What was held back, and whether the text may end where it did."""
        rest = self._parsed(self._stops.flush())
        if self._parser is not None:
            rest = _joined(rest, self._parser.flush())
        if rest != Parsed():
            self._moved(rest, ())
        ended_itself = self._reason == "eos" and self._error is None
        if ended_itself and self._follower is not None and not self._follower.complete:
            self._error = EngineFailed("The engine did not keep to the format that was asked for.")

    def _on_chunk(self, chunk: Chunk) -> bool:
        # llama.cpp swallows exceptions of callbacks, so none may leave here unseen.
        try:
            self._read(chunk)
        except InferdError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 see above
            self._error = EngineFailed("llama.cpp sent something unexpected.", detail=repr(error))
        over = self._reason == "stop_sequence" or self._error is not None
        return over or self.cancel.is_set()

    def _read(self, chunk: Chunk) -> None:
        if "error" in chunk:
            self._fail(chunk)
        elif "prompt_progress" in chunk:
            self._read_progress(chunk["prompt_progress"])
        elif self._reason != "stop_sequence":
            self._read_text(chunk)

    def _read_progress(self, progress: Chunk) -> None:
        total, processed = int(progress["total"]), int(progress["processed"])
        if not self._counted:
            # The first report comes before the first step; nothing is consumed yet.
            self._counted = True
            self._count(total)
            return
        self._processed, self._cached = processed, int(progress["cache"])
        self._moved(Parsed(), ())

    def _count(self, prompt: int) -> None:
        try:
            budget = output_budget(self._options.context_length, prompt, self._options.max_tokens)
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
            self._take(text, _tokens(choice, text, self._output - before, self._options))
        if self._stops.matched is not None:
            self._reason = "stop_sequence"
        elif self._reason is None and choice["finish_reason"] is not None:
            self._reason = "length" if choice["finish_reason"] == "length" else "eos"

    def _take(self, text: str, tokens: tuple[Token, ...]) -> None:
        if self._parser is not None and self._parser.state == "thinking":
            self._thought += len(tokens)
        if tokens and tokens[-1].id in self._options.stop_token_ids:
            self._reason, text = "stop_sequence", ""
        elif self._follower is not None:
            self._follower.feed(text)
        self._moved(self._parsed(self._stops.feed(text)), tokens)

    def _parsed(self, text: str) -> Parsed:
        if self._parser is None:
            return Parsed(text)
        return self._parser.feed(text) if text else Parsed()

    def _moved(self, parsed: Parsed, tokens: tuple[Token, ...]) -> None:
        numbers = (self._processed, self._cached, self._output, self._thought)
        self._report(Moved(*numbers, parsed, tokens))

    def _fail(self, answer: Chunk) -> None:
        error = answer.get("error", answer)
        if error.get("type") == "exceed_context_size_error" or "n_prompt_tokens" in error:
            options = self._options
            prompt = int(error.get("n_prompt_tokens", options.context_length))
            self._error = context_exceeded(options.context_length, prompt, options.max_tokens)
        else:
            self._error = EngineFailed("llama.cpp refused the request.", detail=str(error)[:500])


def _joined(first: Parsed, second: Parsed) -> Parsed:
    return Parsed(
        first.text + second.text, first.reasoning + second.reasoning, first.calls + second.calls
    )


def _tokens(choice: Chunk, text: str, count: int, options: ChoiceOptions) -> tuple[Token, ...]:
    """The tokens behind a chunk. Only the last of a character's tokens comes with its id."""
    logprobs: Chunk = choice.get("logprobs") or {}
    found: list[Chunk] = logprobs.get("content") or []
    if not found:
        return (Token(None, text),) if text else ()
    inside = (Token(None, ""),) * max(count - 1, 0)
    return (*inside, token_of(found[-1], text, lists_top=options.lists_top))


def token_of(entry: Chunk, text: str, *, lists_top: bool) -> Token:
    """A token of llama.cpp's `logprobs.content`."""
    top: tuple[tuple[int, str, float], ...] = ()
    if lists_top:
        listed: list[Chunk] = entry.get("top_logprobs") or []
        top = tuple((int(one["id"]), str(one["token"]), float(one["logprob"])) for one in listed)
    return Token(int(entry["id"]), text, float(entry["logprob"]), top=top)
