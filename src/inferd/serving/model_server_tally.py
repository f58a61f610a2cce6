"""What a model server's chunks add up to: texts, calls, reasons and usage of one answer."""

from __future__ import annotations

from inferd.errors import UpstreamFailed
from inferd.serving.model_server_stream import CallIn, ChoiceIn, Chunk, DeltaIn, UsageIn
from inferd.tasks.base import Usage
from inferd.tasks.text_generation import (
    CallDelta,
    Done,
    FinishReason,
    Text,
    TextGenerationRequest,
    Token,
)

PROMPT_BYTES_PER_TOKEN = 4
"""For estimates only; English text has 4 to 5 bytes for each token in common vocabularies."""


class _New:
    """New output of one choice."""

    __slots__ = ("calls", "texts", "thoughts", "tokens")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[CallDelta] = []
        self.tokens: list[Token] = []

    def event(self, index: int, usage: Usage) -> Text:
        """All of it at once."""
        text, tokens = "".join(self.texts), tuple(self.tokens)
        if not self.thoughts and not self.calls:
            return Text(index, text, tokens, usage)
        return Text(index, text, tokens, usage, "".join(self.thoughts), tuple(self.calls))


class Tally:
    """Texts, reasons and usage of one answer."""

    def __init__(self, request: TextGenerationRequest) -> None:
        self._reasons: list[FinishReason | None] = [None] * request.n
        self._chunks = 0
        self._exact: UsageIn | None = None
        self._prompt_estimate = max(1, request.prompt_bytes() // PROMPT_BYTES_PER_TOKEN)
        self._call_ids: dict[tuple[int, int], str] = {}

    @property
    def finished(self) -> bool:
        """Every choice has its finish reason."""
        return all(reason is not None for reason in self._reasons)

    @property
    def usage(self) -> Usage:
        """What the server said last, or an estimate."""
        exact = self._exact
        if exact is None:
            return Usage(self._prompt_estimate, 0, self._chunks, estimated=True)
        output = exact.completion_tokens
        return Usage(
            exact.prompt_tokens,
            min(exact.cached, exact.prompt_tokens),
            output,
            reasoning_tokens=min(exact.reasoned, output),
        )

    def take(self, chunks: list[Chunk]) -> list[Text]:
        """The events of chunks that came together, one for each choice.

        Raises what the server reports inside the stream.
        """
        found: dict[int, _New] = {}
        for chunk in chunks:
            if chunk.error is not None or chunk.error_message is not None:
                raise UpstreamFailed("The model server failed in the middle of its answer.")
            if chunk.usage is not None:
                self._exact = chunk.usage
            for choice in chunk.choices:
                self._take_choice(choice, found)
        if not found:
            return []
        usage = self.usage
        return [new.event(index, usage) for index, new in found.items()]

    def _take_choice(self, choice: ChoiceIn, found: dict[int, _New]) -> None:
        index, delta = choice.index, choice.delta
        if not 0 <= index < len(self._reasons):
            raise UpstreamFailed("The model server answered with a choice that nobody asked for.")
        text = choice.text if delta is None else delta.content
        if text:
            self._chunks += 1
            new = found.get(index) or found.setdefault(index, _New())
            new.texts.append(text)
            if choice.logprobs is None:
                new.tokens.append(Token(None, text))
            else:
                new.tokens.extend(choice.tokens(text))
        if delta is not None and (delta.reasoning_content or delta.reasoning or delta.tool_calls):
            self._chunks += not text
            self._take_more(index, delta, found.get(index) or found.setdefault(index, _New()))
        if choice.finish_reason is not None:
            self._reasons[index] = self._reason(choice.finish_reason)

    def _take_more(self, index: int, delta: DeltaIn, new: _New) -> None:
        if thought := delta.reasoning_content or delta.reasoning:
            new.thoughts.append(thought)
        if delta.tool_calls:
            new.calls.extend(self._call(index, call) for call in delta.tool_calls)

    def _call(self, choice: int, call: CallIn) -> CallDelta:
        if call.id:
            self._call_ids[choice, call.index] = call.id
        id_ = self._call_ids.get((choice, call.index))
        if id_ is None:
            raise UpstreamFailed("The model server sent a tool call without an id.")
        return CallDelta(call.index, id_, call.function.name or "", call.function.arguments or "")

    def _reason(self, told: str) -> FinishReason:
        if told in ("length", "tool_calls", "stop_sequence"):
            return told
        # The wire does not say whether a stop string or the model itself ended it.
        return "eos"

    def done(self) -> Done:
        """The end. A choice without a reason ended with the stream."""
        return Done(tuple(reason or "eos" for reason in self._reasons), self.usage)
