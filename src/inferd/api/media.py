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
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from inferd.api import inference
from inferd.api.base64_text import decoded
from inferd.api.cut_texts import CUT_MARK
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
_HEAD_CHARACTERS = 256
"""Within which the comma of a data URL stands."""

Pieces = Sequence[bytes | memoryview]
"""A file as it was decoded, or where it lies."""


class MediaDoor:
    """Hands out the binary fields of one request."""

    def __init__(
        self, exchange: Exchange, services: Services, files: Sequence[FormFile] = ()
    ) -> None:
        self._exchange = exchange
        self._services = services
        self._files = files

    async def take(self, given: str, kinds: MediaKind | tuple[MediaKind, ...], param: str) -> Media:
        """One field as Media of this kind, or of one of these: a film that may be either is a film.

        Raises BadRequest with `param`, PayloadTooLarge.
        """
        pieces = await self._pieces(given, param)
        size = sum(len(piece) for piece in pieces)
        if size > self._services.options.media_bytes_max:
            raise PayloadTooLarge(
                f"{param} is over {self._services.options.media_bytes_max} bytes.", param=param
            )
        found = sniff(bytes(pieces[0][:HEAD_BYTES]) if pieces else b"")
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        among = found.kinds if found is not None else ()
        fitting: list[MediaKind] = [one for one in among if one in wanted]
        if found is None or not fitting:
            names = " or ".join(wanted)
            raise BadRequest(f"{param} is no {names} in a format that is read here.", param=param)
        return await self.keep(pieces, size, fitting[0], found.mime)

    def name(self, given: str) -> str:
        """The file name that a form gave; "" if none."""
        return self._file(given).name if given.startswith(FILE_MARK) else ""

    async def _pieces(self, given: str, param: str) -> Pieces:
        if given.startswith(FILE_MARK):
            return [self._file(given).content]
        if given.startswith(CUT_MARK):
            return await _from_base64(self._cut_text(given, param), param)
        if given[:5].lower() == "data:":
            head, found, text = given.partition(",")
            if not found or not head.lower().endswith(";base64"):
                raise BadRequest(f"{param} is no data URL in base64.", param=param)
            return await _from_base64(text, param)
        if given[:8].lower().startswith(("http://", "https://")):
            account_id = self._exchange.caller.account_id
            return [await fetch_url(given, account_id, self._services, param)]
        return await _from_base64(given, param)

    def _cut_text(self, mark: str, param: str) -> memoryview:
        if self._exchange.cut is None:
            raise BadRequest("A field holds a character that has no place there.")
        text = self._exchange.cut.take(mark)
        head = bytes(text[:_HEAD_CHARACTERS])
        if head[:5].lower() != b"data:":
            return text
        claim, found, _ = head.replace(b"\\", b"").partition(b",")
        if not found or not claim.lower().endswith(b";base64"):
            raise BadRequest(f"{param} is no data URL in base64.", param=param)
        return text[head.index(b",") + 1 :]

    def _file(self, mark: str) -> FormFile:
        index = mark.removeprefix(FILE_MARK)
        if not index.isdecimal() or int(index) >= len(self._files):
            raise BadRequest("A field holds a character that has no place there.")
        return self._files[int(index)]

    async def keep(self, pieces: Pieces, size: int, kind: MediaKind, mime: str) -> Media:
        """What is known to be of this kind, in a frame or as a file that ends with the exchange."""
        folder = self._services.media_dir
        if size <= INLINE_BYTES_MAX or folder is None:
            media = Media(kind, mime, size, data=b"".join(pieces))
        else:
            path = folder / secrets.token_hex(16)
            self._exchange.files.append(path)
            # It exists before anything can be cancelled, and nothing makes it once it is deleted.
            path.touch(0o600, exist_ok=False)
            await asyncio.to_thread(_fill, path, pieces)
            media = Media(kind, mime, size, path=str(path))
        if self._exchange.cut is not None:
            self._exchange.cut.taken()
        return media


async def read_with_media(
    exchange: Exchange, services: Services, decoder: msgspec.json.Decoder[S], struct: type[S]
) -> tuple[S, MediaDoor]:
    """The decoded JSON body or form, and the door to its binary fields."""
    content_type = exchange.headers.get(b"content-type")
    bytes_max = services.options.media_body_bytes_max
    if content_type is None or not is_multipart(content_type):
        body = await inference.read_cut(exchange, services, decoder, text_bytes_max=bytes_max)
        return body, MediaDoor(exchange, services)
    body, files = await inference.read_bytes(
        exchange,
        services,
        lambda raw: decode_form_with_files(raw, content_type, struct),
        bytes_max=bytes_max,
    )
    return body, MediaDoor(exchange, services, files)


def _fill(path: Path, pieces: Pieces) -> None:
    with path.open("r+b") as file:
        file.writelines(pieces)


async def _from_base64(text: str | memoryview, param: str) -> list[bytes]:
    try:
        if len(text) <= _IN_LOOP_BYTES:
            return decoded(text)
        return await asyncio.to_thread(decoded, text)
    except ValueError:
        raise BadRequest(
            f"{param} is no file, data URL, http(s) URL or base64.", param=param
        ) from None
