r"""Takes an answer's raw text apart while it comes: thinking, content, tool calls.

    thinking:  [<think>] … </think>      only at the beginning
    a call:    <tool_call>\n{"name": "f", "arguments": {…}}\n</tool_call>

Linear in the text whatever it is, and the same however it was cut. What only looks like a call is
content. Text that may turn out to be markup is held back, so none of it reaches a client.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from inferd import ids
from inferd.tasks.text_generation import CallDelta

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"

_SPACE = r"\s{0,16}"
_NAME = r"[A-Za-z0-9_.-]"
_CALL = re.compile(
    rf'\n{{0,2}}{CALL_OPEN}{_SPACE}\{{{_SPACE}"name"{_SPACE}:{_SPACE}"({_NAME}{{1,64}})"'
    rf'{_SPACE},{_SPACE}"(?:arguments|parameters)"{_SPACE}:{_SPACE}(?=\{{)'
)
_ENDS_IN_CALL = re.compile(
    # Every beginning of the above, from the outside to the inside.
    rf'(?:\n{{1,2}}|\n{{0,2}}(?:{{tag}}|{CALL_OPEN}{_SPACE}(?:\{{{_SPACE}(?:{{name}}|"name"{_SPACE}'
    rf'(?::{_SPACE}(?:"{_NAME}{{0,64}}|"{_NAME}{{1,64}}"{_SPACE}(?:,{_SPACE}'
    rf'(?:"[a-z]{{0,10}}|"(?:arguments|parameters)"{_SPACE}(?::{_SPACE})?)?)?)?)?)?)?))\Z'.replace(
        "{tag}", "|".join(re.escape(CALL_OPEN[:size]) for size in range(len(CALL_OPEN) - 1, 0, -1))
    ).replace("{name}", '"name|"nam|"na|"n|"')
)
_OPENING = re.compile(
    rf"{_SPACE}({THINK_OPEN}|(?:"
    + "|".join(re.escape(THINK_OPEN[:size]) for size in range(len(THINK_OPEN) - 1, -1, -1))
    + r")\Z)"
)
_STRUCTURE = re.compile(r'["{}\[\]]')

State = Literal["opening", "thinking", "content", "arguments", "tail"]


class Parsed(msgspec.Struct, frozen=True):
    """What a piece of text turned out to be."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()


class AnswerParser:
    """Feed text as it comes."""

    def __init__(self, *, thinks: bool, in_thought: bool = False, tools: bool) -> None:
        """`in_thought`: the prompt itself has opened the thinking."""
        self.calls = 0
        """Whole calls so far."""
        self.state: State = "thinking" if in_thought else "opening" if thinks else "content"
        self._tools = tools
        self._buffer, self._at = "", 0
        """What is not decided yet begins at `_at`."""
        self._depth = 0
        self._in_string = False
        self._call_id = ""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._deltas: list[CallDelta] = []
        self._trim = in_thought
        """Drop white space until something else comes."""

    def feed(self, text: str) -> Parsed:
        """What is certain by now."""
        self._buffer, self._at = self._buffer[self._at :] + text, 0
        steps = {
            "opening": self._opening,
            "thinking": self._thinking,
            "content": self._content,
            "arguments": self._arguments,
            "tail": self._tail,
        }
        while steps[self.state]():
            pass
        return self._taken()

    def flush(self) -> Parsed:
        """The rest, once nothing follows: unfinished markup is what it looks like."""
        rest = self._buffer[self._at :]
        self._buffer, self._at = "", 0
        if self.state == "thinking":
            self._reasoning.append(self._untrimmed(rest))
        elif self.state in ("opening", "content"):
            self._text.append(self._untrimmed(rest))
        return self._taken()

    def _taken(self) -> Parsed:
        parsed = Parsed("".join(self._text), "".join(self._reasoning), tuple(self._deltas))
        self._text, self._reasoning, self._deltas = [], [], []
        return parsed

    def _untrimmed(self, text: str) -> str:
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        return text

    def _take_until(self, end: int) -> str:
        taken, self._at = self._buffer[self._at : end], end
        return taken

    def _opening(self) -> bool:
        beginning = _OPENING.match(self._buffer, self._at)
        if beginning is None:
            self.state = "content"
            return True
        if beginning[1] != THINK_OPEN:
            return False
        self._at = beginning.end()
        self.state, self._trim = "thinking", True
        return True

    def _thinking(self) -> bool:
        thought, found = self._until(THINK_CLOSE)
        self._reasoning.append(self._untrimmed(thought))
        if found:
            self.state, self._trim = "content", True
        return found

    def _until(self, mark: str) -> tuple[str, bool]:
        """Text before `mark`, and whether it was found; what may begin it stays."""
        end = self._buffer.find(mark, self._at)
        if end >= 0:
            before = self._take_until(end)
            self._at += len(mark)
            return before, True
        keep = next(
            (
                size
                for size in range(len(mark) - 1, 0, -1)
                if self._buffer.endswith(mark[:size], self._at)
            ),
            0,
        )
        return self._take_until(len(self._buffer) - keep), False

    def _content(self) -> bool:
        call = _CALL.search(self._buffer, self._at) if self._tools else None
        if call is not None:
            self._text.append(self._untrimmed(self._take_until(call.start())))
            self._at = call.end()
            self._call_id = ids.tool_call_id()
            self._deltas.append(CallDelta(self.calls, self._call_id, call[1], ""))
            self.state, self._depth = "arguments", 0
            return True
        begun = _ENDS_IN_CALL.search(self._buffer, self._at) if self._tools else None
        end = len(self._buffer) if begun is None else begun.start()
        self._text.append(self._untrimmed(self._take_until(end)))
        return False

    def _arguments(self) -> bool:
        taken = self._take_until(self._object_end())
        if taken:
            self._deltas.append(CallDelta(self.calls, self._call_id, "", taken))
        if self._depth or not taken:
            return False
        self.calls += 1
        self.state = "tail"
        return True

    def _object_end(self) -> int:
        """Where the object ends, or how far it is certain; keeps the place in between."""
        at = self._at
        while True:
            if self._in_string:
                at = self._string_end(at)
                if self._in_string:
                    return at
            found = _STRUCTURE.search(self._buffer, at)
            if found is None:
                return len(self._buffer)
            at = found.end()
            if found[0] == '"':
                self._in_string = True
            elif found[0] in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    return at

    def _string_end(self, at: int) -> int:
        """Behind the quote that ends the string, or how far it goes; a lone escape stays."""
        while True:
            quote = self._buffer.find('"', at)
            piece = self._buffer[at : quote if quote >= 0 else len(self._buffer)]
            escapes = len(piece) - len(piece.rstrip("\\"))
            if quote < 0:
                return len(self._buffer) - escapes % 2
            at = quote + 1
            if escapes % 2 == 0:
                self._in_string = False
                return at

    def _tail(self) -> bool:
        _, found = self._until(CALL_CLOSE)
        if found:
            self.state, self._trim = "content", True
        return found
