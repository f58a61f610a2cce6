"""What a language model reads to judge a document: token ids with the document marked in them.

The words of the template are tokenised apart from what users wrote, so no text of theirs can
become a special token: a document cannot end its own turn.
"""

from __future__ import annotations

import re

import msgspec

from inferd.engines.llama_tokens import LlamaTokens
from inferd.errors import EngineFailed

_SLOT = re.compile(r"\{(query|document|instruction)\}")


class Sequence(msgspec.Struct, frozen=True):
    """What the model reads at once."""

    ids: list[int]
    start: int = 0
    """Where the document begins, and"""
    end: int = 0
    """where it ends."""


class Ids(msgspec.Struct, frozen=True):
    """A text twice: as it is, and with a space before it, which most tokens begin with."""

    plain: list[int]
    spaced: list[int]


def ids_of(tokens: LlamaTokens, text: str) -> Ids:
    """The ids of a user's text. Blocks."""
    return Ids(
        [id_ for id_, _ in tokens.tokenize(text, add_special=False, parse_special=False)],
        [id_ for id_, _ in tokens.tokenize(" " + text, add_special=False, parse_special=False)],
    )


class Template:
    """A prompt with {query}, {document} and {instruction} in it."""

    def __init__(self, tokens: LlamaTokens, text: str, role: str) -> None:
        self.takes_instruction = "{instruction}" in text
        self._parts: list[list[int] | tuple[str, bool]] = []
        parts = _SLOT.split(text)
        if "document" not in parts[1::2]:
            raise EngineFailed(f"The card's option {role!r} lacks {{document}}.")
        for index, part in enumerate(parts):
            if index % 2:
                self._parts.append((part, parts[index - 1].endswith(" ")))
            elif literal := part.removesuffix(" ") if index + 1 < len(parts) else part:
                pieces = tokens.tokenize(literal, add_special=False)
                self._parts.append([id_ for id_, _ in pieces])
        self.literal = sum(len(part) for part in self._parts if isinstance(part, list))
        """Tokens of the template's own words."""

    def fill(self, values: dict[str, Ids], document_max: int) -> Sequence:
        """The ids, the document cut to `document_max` tokens."""
        ids: list[int] = []
        start = end = 0
        for part in self._parts:
            if isinstance(part, list):
                ids += part
                continue
            name, spaced = part
            value = values[name].spaced if spaced else values[name].plain
            if name == "document":
                value = value[:document_max]
                start, end = len(ids), len(ids) + len(value)
            ids += value
        return Sequence(ids, start, end)
