"""What a worker and its decoder say to each other: a job one way, output in frames the other.

    frame = kind (1 byte) + length (4 bytes, big-endian) + body

A job is one frame of msgpack. Its answer is any number of DATA frames, then one of MADE or REFUSED.
"""

from __future__ import annotations

import socket
import struct
from typing import Literal

import msgspec

from inferd.tasks.media import Media

DATA, MADE, REFUSED, JOB, READY = b"d", b"m", b"r", b"j", b"y"
DATA_BYTES_MAX = 1 << 20
FRAME_BYTES_MAX = 64 << 20
"""A job carries its media only where it came without a file."""

Kind = Literal["picture", "mask", "sound", "frames"]

_HEAD = struct.Struct(">cI")


class Job(msgspec.Struct, frozen=True):
    """One thing to decode."""

    kind: Kind
    media: Media
    param: str
    """The field that refusals name."""
    cpu_seconds: int
    """More is not computed for it."""
    rate: int = 0
    """Hertz, of sound."""
    seconds_max: float = 0.0
    """Of sound and films."""
    frames: int = 0
    """At most so many pictures of a film."""
    pixels_max: int = 0
    """What each of them is shrunk to."""


class Made(msgspec.Struct, frozen=True):
    """The data before this is whole."""

    mode: str = ""
    """Pillow's name of the pixels' kind."""
    width: int = 0
    height: int = 0
    seconds: tuple[float, ...] = ()
    """When each picture of a film is shown."""
    sound: bool = False
    """The film has sound."""


class Refused(msgspec.Struct, frozen=True):
    """The sentence for the caller, and what the log may read."""

    message: str
    detail: str | None = None
    ends: bool = False
    """This decoder takes no other job."""


job_decoder = msgspec.msgpack.Decoder(Job)
made_decoder = msgspec.msgpack.Decoder(Made)
refused_decoder = msgspec.msgpack.Decoder(Refused)


def send(sock: socket.socket, kind: bytes, body: bytes | bytearray | memoryview = b"") -> None:
    """One frame. Raises OSError."""
    sock.sendall(_HEAD.pack(kind, len(body)))
    if body:
        sock.sendall(body)


def send_message(sock: socket.socket, kind: bytes, message: Job | Made | Refused) -> None:
    """One frame of msgpack."""
    send(sock, kind, msgspec.msgpack.encode(message))


class Hearing:
    """Reads frames from one socket, with whatever timeout it has."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._head = bytearray(_HEAD.size)
        self._at = 0
        self._kind = b""
        self._body = bytearray()

    def frame(self) -> tuple[bytes, bytearray]:
        """The next frame; after a TimeoutError call it again and it reads on.

        Raises EOFError when the other end is gone, ValueError for what is no frame, OSError.
        """
        if not self._kind:
            self._fill(self._head)
            kind, length = _HEAD.unpack(self._head)
            if length > FRAME_BYTES_MAX:
                raise ValueError("A frame is over the cap.")
            self._kind, self._body, self._at = kind, bytearray(length), 0
        self._fill(self._body)
        kind, body = self._kind, self._body
        self._kind, self._at = b"", 0
        return kind, body

    def _fill(self, target: bytearray) -> None:
        with memoryview(target) as view:
            while self._at < len(target):
                size = self._sock.recv_into(view[self._at :])
                if not size:
                    raise EOFError
                self._at += size
