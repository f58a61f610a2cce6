"""The one door for binary input: form parts, data URLs, bare base64, http(s) URLs.

An endpoint reads its body with `read_with_media` and then takes what its fields say::

    body, door = await read_with_media(exchange, services, _DECODER, TranscriptionIn)
    audio = await door.take(body.audio, "audio", "audio")

In the Struct such a field is a `str`: where a form sent bytes, it holds a mark that the door
knows. Nothing is decoded here: the worker does that, under its limits. What does not fit a frame
becomes a private file that is deleted when the exchange ends.
"""

from __future__ import annotations

import asyncio
import binascii
import secrets
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.fetch_url import fetch_url
from inferd.api.multipart import FILE_MARK, FormFile, decode_form_with_files, is_multipart
from inferd.api.services import Services
from inferd.api.sniff import HEAD_BYTES, sniff
from inferd.errors import BadRequest, PayloadTooLarge
from inferd.tasks.media import INLINE_BYTES_MAX, Media, MediaKind

S = TypeVar("S", bound=msgspec.Struct)

_IN_LOOP_BYTES = 256 * 1024
"""Longer base64 is decoded in a thread."""
_PIECE_CHARACTERS = 1024 * 1024
"""Four characters are three bytes, so pieces end where bytes end."""


class MediaDoor:
    """Hands out the binary fields of one request."""

    def __init__(
        self, exchange: Exchange, services: Services, files: Sequence[FormFile] = ()
    ) -> None:
        self._exchange = exchange
        self._services = services
        self._files = files

    async def take(self, given: str, kind: MediaKind, param: str) -> Media:
        """One field as Media of this kind. Raises BadRequest with `param`, PayloadTooLarge."""
        content = await self._content(given, param)
        if len(content) > self._services.options.media_bytes_max:
            raise PayloadTooLarge(
                f"{param} is over {self._services.options.media_bytes_max} bytes.", param=param
            )
        found = sniff(content[:HEAD_BYTES])
        if found is None or kind not in found.kinds:
            raise BadRequest(f"{param} is no {kind} in a format that is read here.", param=param)
        return await self._keep(content, kind, found.mime)

    def name(self, given: str) -> str:
        """The file name that a form gave; "" if none."""
        return self._file(given).name if given.startswith(FILE_MARK) else ""

    async def _content(self, given: str, param: str) -> bytes:
        if given.startswith(FILE_MARK):
            return self._file(given).content
        if given[:5].lower() == "data:":
            head, found, text = given.partition(",")
            if not found or not head.lower().endswith(";base64"):
                raise BadRequest(f"{param} is no data URL in base64.", param=param)
            return await _from_base64(text, param)
        if given[:8].lower().startswith(("http://", "https://")):
            return await fetch_url(given, self._exchange.caller.account_id, self._services, param)
        return await _from_base64(given, param)

    def _file(self, mark: str) -> FormFile:
        index = mark.removeprefix(FILE_MARK)
        if not index.isdecimal() or int(index) >= len(self._files):
            raise BadRequest("A field holds a character that has no place there.")
        return self._files[int(index)]

    async def _keep(self, content: bytes, kind: MediaKind, mime: str) -> Media:
        folder = self._services.media_dir
        if len(content) <= INLINE_BYTES_MAX or folder is None:
            return Media(kind, mime, len(content), data=content)
        path = folder / secrets.token_hex(16)
        self._exchange.files.append(path)
        # It exists before anything can be cancelled, and nothing makes it once it is deleted.
        path.touch(0o600, exist_ok=False)
        await asyncio.to_thread(_fill, path, content)
        return Media(kind, mime, len(content), path=str(path))


async def read_with_media(
    exchange: Exchange, services: Services, decoder: msgspec.json.Decoder[S], struct: type[S]
) -> tuple[S, MediaDoor]:
    """The decoded JSON body or form, and the door to its binary fields."""
    content_type = exchange.headers.get(b"content-type")
    bytes_max = services.options.media_body_bytes_max
    if content_type is None or not is_multipart(content_type):
        body = await inference.read(exchange, services, decoder, bytes_max=bytes_max)
        return body, MediaDoor(exchange, services)
    body, files = await inference.read_bytes(
        exchange,
        services,
        lambda raw: decode_form_with_files(raw, content_type, struct),
        bytes_max=bytes_max,
    )
    return body, MediaDoor(exchange, services, files)


def _fill(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)


async def _from_base64(text: str, param: str) -> bytes:
    if len(text) <= _IN_LOOP_BYTES:
        return _decoded(text, param)
    return await asyncio.to_thread(_decoded, text, param)


def _decoded(text: str, param: str) -> bytes:
    try:
        return _in_pieces(text)
    except (binascii.Error, ValueError):
        pass
    compact = "".join(text.split()).replace("-", "+").replace("_", "/")
    try:
        return _in_pieces(compact + "=" * (-len(compact) % 4))
    except (binascii.Error, ValueError):
        raise BadRequest(
            f"{param} is no file, data URL, http(s) URL or base64.", param=param
        ) from None


def _in_pieces(text: str) -> bytes:
    """Strict base64; other threads run between the pieces. ValueError for what is none."""
    if "=" in text[: max(0, len(text) - 2)]:
        raise ValueError("padding in the middle")
    steps = range(0, len(text), _PIECE_CHARACTERS)
    return b"".join(b64decode(text[at : at + _PIECE_CHARACTERS], validate=True) for at in steps)
