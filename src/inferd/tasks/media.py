"""Binary input on its way to a worker. Data only; nobody here looks inside."""

from __future__ import annotations

from typing import Literal

import msgspec

MediaKind = Literal["image", "audio", "video"]

INLINE_BYTES_MAX = 1024 * 1024
"""More than this travels as a path, not in a frame."""


class Media(msgspec.Struct, frozen=True, omit_defaults=True):
    """One picture, recording or film, encoded as it came. Exactly one of `data` and `path`."""

    kind: MediaKind
    """What its first bytes look like."""
    mime: str
    """Sniffed, such as `image/png`; never what the client claims."""
    size_bytes: int
    data: bytes | None = None
    path: str | None = None
    """A private file that the gateway deletes when the request ends. The worker only reads it."""

    def read(self) -> bytes:
        """All of it. OSError when the request has ended and its file is gone."""
        if self.data is not None:
            return self.data
        assert self.path is not None, "a Media has data or a path"
        with open(self.path, "rb") as file:
            return file.read()
