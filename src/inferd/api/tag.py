"""What a request belongs to, in its caller's own word: `x-inferd-tag`, or OpenAI's metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from inferd.errors import BadRequest

HEADER = b"x-inferd-tag"
_TAG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._:/@+-]{0,62}[A-Za-z0-9._:/@+-])?")


class Metadata(msgspec.Struct, frozen=True):
    """OpenAI's `metadata`; all but `tag` is the caller's own affair."""

    tag: str | None = None


def tag_of(headers: Mapping[bytes, bytes], in_body: str | None = None) -> str | None:
    """The tag of a request; the body's goes before the header's. Raises BadRequest."""
    if in_body:
        return _checked(in_body, "metadata.tag")
    given = headers.get(HEADER)
    return _checked(given.decode("latin-1"), HEADER.decode()) if given else None


def _checked(tag: str, where: str) -> str:
    if not _TAG.fullmatch(tag):
        raise BadRequest(
            f"{where} is a word of at most 64 letters, digits, spaces and . _ : / @ + - "
            "that begins with a letter or a digit.",
            param=where,
        )
    return tag
