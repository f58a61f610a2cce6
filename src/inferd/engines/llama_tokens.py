"""The tokenizer of a llama.cpp server, asked over its private socket.

The package has no call for it; its listener has, behind a path and a key that nobody else knows.
"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

import msgspec

from inferd.errors import BadRequest, EngineFailed

SECONDS_MAX = 30


class LlamaListener(msgspec.Struct, frozen=True):
    """Where a server listens, and its key."""

    path: Path
    key: str


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds_max: float) -> None:
        super().__init__("localhost", timeout=seconds_max)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(listener: LlamaListener, path: str, body: Any, seconds_max: float = SECONDS_MAX) -> bytes:
    """POST to a server's private socket. Raises EngineFailed. Blocks."""
    connection = _UnixConnection(listener.path, seconds_max)
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {listener.key}",
    }
    try:
        connection.request("POST", path, msgspec.json.encode(body), headers)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineFailed("llama.cpp does not answer.", detail=repr(error)) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise EngineFailed(f"llama.cpp failed at {path}.", detail=repr(content[:300]))
    return content


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int]


class _Tokens(msgspec.Struct):
    tokens: list[_Piece]


class _Content(msgspec.Struct):
    content: str


class LlamaTokens:
    """Text to tokens and back. Blocks: call it from a thread."""

    def __init__(self, listener: LlamaListener, vocabulary_size: int) -> None:
        self._listener = listener
        self.vocabulary_size = vocabulary_size

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool = True
    ) -> list[tuple[int, str]]:
        """(id, text) of each token. A piece of a character has the text U+FFFD.

        Without `parse_special`, the letters of a special token are letters.
        """
        asked = {
            "content": text,
            "add_special": add_special,
            "parse_special": parse_special,
            "with_pieces": True,
        }
        found = msgspec.json.decode(self._post("/tokenize", asked), type=_Tokens)
        return [(piece.id, _text(piece.piece)) for piece in found.tokens]

    def detokenize(self, ids: tuple[int, ...]) -> str:
        """The text. Raises BadRequest for ids outside the vocabulary."""
        self.check(ids, "tokens")
        if not ids:
            return ""
        content = self._post("/detokenize", {"tokens": ids})
        return msgspec.json.decode(content, type=_Content).content

    def check(self, ids: tuple[int, ...], param: str) -> None:
        """Raises BadRequest for ids outside the vocabulary."""
        for token in ids:
            if not 0 <= token < self.vocabulary_size:
                raise BadRequest(
                    f"The token id {token} is outside of the vocabulary of this model, which has "
                    f"{self.vocabulary_size} tokens.",
                    param=param,
                )

    def _post(self, path: str, body: Any) -> bytes:
        return ask(self._listener, path, body)


def _text(piece: str | list[int]) -> str:
    return piece if isinstance(piece, str) else bytes(piece).decode("utf-8", "replace")
