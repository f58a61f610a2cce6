"""Long base64 in a JSON body, cut out before the body is decoded.

The decoder would make a string of it in one go, which holds up everybody for as long. Here only
quotes are looked for; the text stays where it arrived, and `MediaDoor` decodes it in pieces.
What is cut out is no part of the text that a caller may send: pictures may be larger than prompts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from inferd.api.steps import count, find
from inferd.errors import BadRequest

CUT_MARK = "\0text:"
"""A field whose text was cut out holds this and the index of the text."""
CUT_BYTES_MIN = 256 * 1024
_STEP = CUT_BYTES_MIN // 2
"""A longer text has a whole step without a quote in it."""
_KEY_BYTES = 96
_KEY = re.compile(
    rb'"(?:audio|data|file|file_data|image|image_url|input_reference|mask|url)"\s*:\s*\[?\s*$'
)
"""Fields that hold media, or the first item of a list of media; a prompt is never cut out."""
_START = re.compile(rb"data:|[A-Za-z0-9+/_-]{16}", re.IGNORECASE)

Raw = bytes | bytearray


def cut_out(body: Raw) -> tuple[Raw, list[memoryview]]:
    """The body with marks in place of long base64, and what they stand for."""
    found = _found(body)
    if not found:
        return body, []
    seen, rest, at = memoryview(body), bytearray(), 0
    for index, (start, end) in enumerate(found):
        rest += seen[at : start + 1]
        rest += f"\\u0000{CUT_MARK[1:]}{index}".encode()
        at = end
    rest += seen[at:]
    return rest, [seen[start + 1 : end] for start, end in found]


def _found(body: Raw) -> list[tuple[int, int]]:
    """Where the quotes of each such text are."""
    found: list[tuple[int, int]] = []
    step = _STEP
    while step < len(body):
        if body.find(b'"', step, step + _STEP) >= 0:
            step += _STEP
            continue
        behind = found[-1][1] + 1 if found else 0
        start, end = body.rfind(b'"', behind, step), find(body, b'"', step + _STEP)
        if end < 0:
            break
        if start >= 0 and _is_media(body, start, end, behind):
            found.append((start, end))
        step = (end // _STEP + 1) * _STEP
    return found


def _is_media(body: Raw, start: int, end: int, behind: int) -> bool:
    """True for base64 or a data URL in a field of media. `behind`: where the last one ended."""
    before = bytes(body[max(behind, start - _KEY_BYTES) : start])
    follows = bool(behind) and not before.strip(b" \t\r\n,")
    if end - start <= CUT_BYTES_MIN or not (follows or _KEY.search(before)):
        return False
    if not _START.match(body, start + 1):
        return False
    # PHP writes every slash with a backslash before it; other escapes are left to the decoder.
    escapes = count(body, b"\\", start, end)
    return not escapes or escapes == count(body, b"\\/", start, end)


class CutTexts:
    """The texts of one request, each to be taken once; their bytes are counted until then."""

    def __init__(self, texts: list[memoryview], release: Callable[[], None]) -> None:
        self._texts = dict(enumerate(texts))
        self._release = release

    def take(self, mark: str) -> memoryview:
        """The text that a field's mark stands for. BadRequest if there is none."""
        index = mark.removeprefix(CUT_MARK)
        text = self._texts.pop(int(index), None) if index.isdecimal() else None
        if text is None:
            raise BadRequest("A field holds a character that has no place there.")
        return text

    def taken(self) -> None:
        """What was taken is kept elsewhere by now; after the last one nothing is counted."""
        if not self._texts:
            self._release()

    def close(self) -> None:
        """The request is over."""
        self._texts.clear()
        self._release()
