"""The pieces in which a text is spoken."""

from __future__ import annotations

import re
import unicodedata

PIECE_CHARACTERS_MAX = 300
_SENTENCE = re.compile(r"(?<=[.!?…])[\"')\]”’]*\s+|\n+")
_TITLE = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|St|Prof|Jr|Sr|vs|[A-Z])\.$")
_CLAUSE = re.compile(r"(?<=[,;:—])\s+")
_LONG_NUMBER = re.compile(r"\d[\d,]{15,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def pieces(text: str) -> list[str]:
    """The text in pieces that are spoken one after another: sentences, or clauses of long ones.

    None is longer than PIECE_CHARACTERS_MAX.
    """
    found: list[str] = []
    for sentence in _sentences(_readable(text)):
        found += _short(sentence, _CLAUSE)
    return [piece for piece in found if piece]


def _readable(text: str) -> str:
    """Without control characters; numbers that have no name are read digit by digit."""
    spelt = _LONG_NUMBER.sub(lambda found: " ".join(found[0].replace(",", "")), text)
    return _CONTROL.sub(" ", unicodedata.normalize("NFC", spelt))


def _sentences(text: str) -> list[str]:
    found: list[str] = []
    begin = 0
    for gap in _SENTENCE.finditer(text):
        before = text[begin : gap.start()]
        # The stop behind a title is no end: `Dr. Smith`.
        if "\n" in gap[0] or not _TITLE.search(before):
            found.append(text[begin : gap.end()].strip())
            begin = gap.end()
    return [*found, text[begin:].strip()]


def _short(sentence: str, mark: re.Pattern[str] | None) -> list[str]:
    if len(sentence) <= PIECE_CHARACTERS_MAX:
        return [sentence]
    parts = mark.split(sentence) if mark else sentence.split()
    found: list[str] = []
    for part in parts:
        if found and len(found[-1]) + len(part) < PIECE_CHARACTERS_MAX:
            found[-1] += f" {part}"
        elif len(part) <= PIECE_CHARACTERS_MAX:
            found.append(part)
        elif mark is not None:
            found += _short(part, None)
        else:
            size = PIECE_CHARACTERS_MAX
            found += [part[at : at + size] for at in range(0, len(part), size)]
    return found
