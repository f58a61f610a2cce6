"""The output items of an answer while they grow, and the events that tell of it.

One item is open at a time. Plain calls take the items, streams the events: both come from here, so
they cannot differ.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate

import msgspec

from inferd.api.openai.logprobs import TokenLogprob, chat_logprobs
from inferd.api.openai.responses_out import (
    CallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Status,
)
from inferd.errors import UpstreamFailed
from inferd.tasks.text_generation import CallDelta, Text, Token

Event = tuple[str, Mapping[str, object]]
"""Name and fields of an event, its sequence number apart."""

ADDED, DONE = "response.output_item.added", "response.output_item.done"
PART_ADDED, PART_DONE = "response.content_part.added", "response.content_part.done"


class Growth:
    """Feed the events of an answer in order, then end it once."""

    def __init__(self, request_id: str, *, logprobs: bool) -> None:
        self.items: list[OutputItem] = []
        """Those that are done."""
        self._request_id = request_id
        self._logprobs = logprobs
        self._open: _Thought | _Speech | _Call | None = None
        self._blank = ""
        """White space that may turn out to be nothing but what stands between calls."""
        self._tokens: list[Token] = []
        """Tokens whose text has not come out yet."""

    def add(self, event: Text) -> Iterator[Event]:
        """What new text changes."""
        if self._logprobs:
            self._tokens += event.tokens
        calls = event.calls
        while calls and isinstance(self._open, _Call) and self._open.index == calls[0].index:
            # One event may hold the end of a call and the text after it.
            yield from self._open.grow(calls[0].arguments)
            calls = calls[1:]
        if event.reasoning:
            yield from self._think(event.reasoning)
        if event.text:
            yield from self._speak(event.text, after=len(event.reasoning))
        elif event.reasoning or event.calls:
            self._tokens = []
        for call in calls:
            yield from self._call(call)

    def end(self, status: Status) -> Iterator[Event]:
        """Close what is open. An answer without calls has a message, even an empty one."""
        has_call = isinstance(self._open, _Call) or any(
            isinstance(item, CallItem) for item in self.items
        )
        has_message = isinstance(self._open, _Speech) or any(
            isinstance(item, MessageItem) for item in self.items
        )
        if not has_call and not has_message:
            yield from self._close("completed")
            yield from self._start(_Speech(*self._place("msg")))
            if self._blank:
                yield from self._say(self._blank)
        yield from self._close(status)

    def _place(self, prefix: str) -> tuple[str, int]:
        """Id and index of the next item."""
        index = len(self.items) + (self._open is not None)
        return f"{prefix}_{self._request_id}_{index}", index

    def _start(self, item: _Thought | _Speech | _Call) -> Iterator[Event]:
        yield from self._close("completed")
        self._open = item
        yield from item.start()

    def _close(self, status: Status) -> Iterator[Event]:
        if self._open is not None:
            item, events = self._open.close(status)
            self.items.append(item)
            self._open = None
            yield from events

    def _think(self, thought: str) -> Iterator[Event]:
        if not isinstance(self._open, _Thought):
            yield from self._start(_Thought(*self._place("rs")))
        assert isinstance(self._open, _Thought), "it was just started"
        yield from self._open.grow(thought)

    def _speak(self, text: str, *, after: int) -> Iterator[Event]:
        if not isinstance(self._open, _Speech):
            text = self._blank + text
            self._blank = text if text.isspace() else ""
            if self._blank:
                return
            yield from self._start(_Speech(*self._place("msg")))
        yield from self._say(text, after=after)

    def _say(self, text: str, *, after: int = 0) -> Iterator[Event]:
        assert isinstance(self._open, _Speech), "whoever says something has opened a message"
        logprobs: list[TokenLogprob] = []
        if self._logprobs:
            logprobs = chat_logprobs(self._tokens_of(text, after)).content
        yield from self._open.grow(text, logprobs)

    def _tokens_of(self, text: str, after: int) -> list[Token]:
        """Take the tokens that made `text`: not markup before it, nor what is still held back."""
        ends = list(accumulate(len(token.text) for token in self._tokens))
        whole = "".join(token.text for token in self._tokens)
        starts = (at for at in (0, *ends) if at >= after and whole.startswith(text, at))
        # Where one token holds markup and text, the text begins inside of it.
        start = next(starts, whole.find(text, after))
        if start < 0:
            taken, self._tokens = self._tokens, []
            return taken
        first = bisect_right(ends, start)
        last = bisect_left(ends, start + len(text)) + 1
        taken, self._tokens = self._tokens[first:last], self._tokens[last:]
        return taken

    def _call(self, delta: CallDelta) -> Iterator[Event]:
        self._blank = ""
        if not (isinstance(self._open, _Call) and self._open.index == delta.index):
            if not delta.name:
                raise UpstreamFailed("The pieces of two tool calls came mixed.")
            id_, output_index = self._place("fc")
            yield from self._start(_Call(id_, output_index, delta))
        assert isinstance(self._open, _Call), "it was just started"
        if delta.arguments:
            yield from self._open.grow(delta.arguments)


class _Thought:
    """A reasoning item that is open."""

    def __init__(self, id_: str, output_index: int) -> None:
        self._id = id_
        self._at = {"item_id": id_, "output_index": output_index, "content_index": 0}
        self._pieces: list[str] = []

    def start(self) -> Iterator[Event]:
        item = ReasoningItem(self._id, [])
        yield ADDED, {"output_index": self._at["output_index"], "item": item}
        yield PART_ADDED, {**self._at, "part": ReasoningText("")}

    def grow(self, thought: str) -> Iterator[Event]:
        self._pieces.append(thought)
        yield "response.reasoning_text.delta", {**self._at, "delta": thought}

    def close(self, status: Status) -> tuple[OutputItem, list[Event]]:
        part = ReasoningText("".join(self._pieces))
        item = ReasoningItem(self._id, [part])
        return item, [
            ("response.reasoning_text.done", {**self._at, "text": part.text}),
            (PART_DONE, {**self._at, "part": part}),
            (DONE, {"output_index": self._at["output_index"], "item": item}),
        ]


class _Speech:
    """A message that is open."""

    def __init__(self, id_: str, output_index: int) -> None:
        self._id = id_
        self._at = {"item_id": id_, "output_index": output_index, "content_index": 0}
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def start(self) -> Iterator[Event]:
        item = MessageItem(self._id, "in_progress", [])
        yield ADDED, {"output_index": self._at["output_index"], "item": item}
        yield PART_ADDED, {**self._at, "part": OutputText("")}

    def grow(self, text: str, logprobs: list[TokenLogprob]) -> Iterator[Event]:
        self._pieces.append(text)
        self._logprobs += logprobs
        fields = {**self._at, "delta": text, "logprobs": logprobs}
        yield "response.output_text.delta", fields

    def close(self, status: Status) -> tuple[OutputItem, list[Event]]:
        part = OutputText("".join(self._pieces), logprobs=self._logprobs)
        item = MessageItem(self._id, status, [part])
        told = {**self._at, "text": part.text, "logprobs": part.logprobs}
        return item, [
            ("response.output_text.done", told),
            (PART_DONE, {**self._at, "part": part}),
            (DONE, {"output_index": self._at["output_index"], "item": item}),
        ]


class _Call:
    """A function call that is open."""

    def __init__(self, id_: str, output_index: int, delta: CallDelta) -> None:
        self.index = delta.index
        self._at = {"item_id": id_, "output_index": output_index}
        self._item = CallItem(id_, delta.id, delta.name, "", "in_progress")
        self._pieces: list[str] = []

    def start(self) -> Iterator[Event]:
        yield ADDED, {"output_index": self._at["output_index"], "item": self._item}

    def grow(self, arguments: str) -> Iterator[Event]:
        self._pieces.append(arguments)
        yield "response.function_call_arguments.delta", {**self._at, "delta": arguments}

    def close(self, status: Status) -> tuple[OutputItem, list[Event]]:
        arguments = "".join(self._pieces)
        item = msgspec.structs.replace(self._item, arguments=arguments, status=status)
        told = {**self._at, "name": item.name, "arguments": arguments}
        return item, [
            ("response.function_call_arguments.done", told),
            (DONE, {"output_index": self._at["output_index"], "item": item}),
        ]
