"""Long answers, made and sent a slice at a time: between two slices everybody else has the loop.

A thread would not help: one long call of the encoder holds the interpreter's lock. So a Teller
whose answer may be long hands out an iterator, which `single` sends as it is made::

    long = LongJson()
    body = Out(request_id, f"data:audio/wav;base64,{long.text(base64_pieces(audio))}")
    return long.pieces(encode(body))
"""

from __future__ import annotations

import asyncio
import re
import secrets
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

SLICE_BYTES = 128 * 1024
"""About what is made at once: a millisecond or two of work, also for numbers."""
_BASE64_BYTES = SLICE_BYTES // 4 * 3
"""A multiple of three, so that pieces end where characters end."""

Body = bytes | Iterator[bytes]
"""An answer: whole, or in pieces of any size that are made when they are asked for."""


class LongJson:
    """Holds places in a JSON body open for what is too long to be encoded at once."""

    def __init__(self) -> None:
        # Nobody can write it into a prompt that is sent back.
        self._mark = secrets.token_hex(16)
        self._parts: list[Iterable[bytes]] = []

    def text(self, pieces: Iterable[bytes]) -> str:
        """Stands, inside of a string, for text without quotes and backslashes."""
        self._parts.append(pieces)
        return f"{self._mark}{len(self._parts) - 1};"

    def value(self, pieces: Iterable[bytes]) -> Any:  # whatever type its place has
        """Stands for a value that is JSON already."""
        return f"value-{self.text(pieces)}"

    def pieces(self, encoded: bytes) -> Iterator[bytes]:
        """The body, its places filled."""
        place = re.compile(rb'"value-%b(\d+);"|%b(\d+);' % ((self._mark.encode(),) * 2))
        at = 0
        for found in place.finditer(encoded):
            yield encoded[at : found.start()]
            yield from self._parts[int(found[1] or found[2])]
            at = found.end()
        yield encoded[at:]


def base64_pieces(content: bytes | bytearray) -> Iterator[bytes]:
    """Base64 of the content."""
    seen = memoryview(content)
    for at in range(0, len(seen), _BASE64_BYTES):
        yield b64encode(seen[at : at + _BASE64_BYTES])


def framed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A JSON body as the last event of a stream."""
    yield b"data: "
    yield from pieces
    yield b"\n\ndata: [DONE]\n\n"


def even(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, small pieces put together; at least one piece."""
    kept = bytearray()
    for piece in pieces:
        kept += piece
        if len(kept) >= SLICE_BYTES:
            yield bytes(kept)
            kept = bytearray()
    yield bytes(kept)


async def joined(body: Body) -> bytes:
    """All of it; the loop runs while it is made."""
    if isinstance(body, bytes):
        return body
    whole = bytearray()
    for piece in even(body):
        whole += piece
        await asyncio.sleep(0)
    return bytes(whole)
