"""What gateway and worker say to each other: length-prefixed msgpack frames over a socket pair.

    frame = length (4 bytes, big-endian) + msgpack of one message

Requests are multiplexed by id; a cancel is its own message and never waits behind output. Events
that are ready together travel in one frame.

Output flows against credit, for each request apart: the worker may be WINDOW_BYTES ahead of the
reader, who gives back what he has taken with `Credit`. A reader who stops holds up his own request
and nobody else's, and neither process keeps more than the window for him. What ends a request with
an error, and whatever comes after a cancel, waits for no credit.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, cast

import msgspec

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources
from inferd.errors import BY_CODE, BadRequest, EngineFailed, InferdError
from inferd.tasks.base import CHUNK_BYTES_MAX, Chunk
from inferd.tasks.every import Event
from inferd.tasks.text_to_image import Preview

WINDOW_BYTES = 4 * CHUNK_BYTES_MAX
"""Output of one request that may lie between the engine and its reader."""
CREDIT_BYTES = WINDOW_BYTES // 4
"""Taken before credit is given back: a message for every 64 events or each whole chunk."""
EVENT_BYTES = 4096
"""What an event without bytes counts for; a token with twenty alternatives is about as large."""

FRAME_BYTES_MAX = 64 * 1024 * 1024
"""A request body is at most 10 MB by default, its text at most doubles in msgpack; 64 MiB leaves
room for a raised cap and still bounds what a broken peer can make us allocate."""

_LENGTH = struct.Struct(">I")


class Load(msgspec.Struct, frozen=True, array_like=True, tag="load"):
    """Load this model. Once, first."""

    card: ModelCard
    resources: Resources


class Run(msgspec.Struct, frozen=True, array_like=True, tag="run"):
    """Compute this request."""

    request_id: str
    request: Request


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Stop computing it; answered by `Stopped`, `Done` or `Failed` of that id."""

    request_id: str


class Credit(msgspec.Struct, frozen=True, array_like=True, tag="credit"):
    """The reader has taken so much more of this request's output."""

    request_id: str
    size_bytes: int


class Close(msgspec.Struct, frozen=True, array_like=True, tag="close"):
    """Free everything and exit."""


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag="loaded"):
    """Ready."""

    features: Features


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An error on its way between processes."""

    code: str
    message: str
    param: str | None
    detail: str | None


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, tag="load_failed"):
    """It will never be ready."""

    failure: Failure


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """A request ended with an error."""

    failure: Failure


class Piece(msgspec.Struct, frozen=True, array_like=True, tag="piece"):
    """The next bytes of the vectors of an `Embedded` that is too large for one message."""

    data: bytes


Output = Event | Failed | Piece


class Events(msgspec.Struct, frozen=True, array_like=True, tag="events"):
    """Events of any requests, in the order they happened."""

    items: list[tuple[str, Output]]


ToWorker = Load | Run | Cancel | Credit | Close
FromWorker = Loaded | LoadFailed | Events

_encoder = msgspec.msgpack.Encoder()


def failure_of(error: InferdError) -> Failure:
    """Pack an error."""
    return Failure(error.code, error.message[:2000], error.param, error.detail)


def error_of(failure: Failure) -> InferdError:
    """Unpack it as the class it was; an unknown code is an engine's failure."""
    kind = BY_CODE.get(failure.code, EngineFailed)
    return kind(failure.message, param=failure.param, detail=failure.detail)


def weight(output: Output) -> int:
    """What it takes of its request's window."""
    if type(output) is Chunk or type(output) is Piece or type(output) is Preview:
        return len(output.data)
    return EVENT_BYTES


def frame(message: msgspec.Struct) -> bytearray:
    """One message as bytes. A long text is not copied once more to put its length before it."""
    whole = bytearray(_LENGTH.size)
    try:
        _encoder.encode_into(message, whole, _LENGTH.size)
    except (OverflowError, RecursionError) as error:
        raise BadRequest("A number is too large, or something nests too deeply.") from error
    length = len(whole) - _LENGTH.size
    if length > FRAME_BYTES_MAX:
        raise EngineFailed("The request is too large to hand to a worker.")
    _LENGTH.pack_into(whole, 0, length)
    return whole


class Frames:
    """Cuts a byte stream into messages."""

    def __init__(self, kind: Any) -> None:
        """`kind` is a union of tagged Structs."""
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(kind)
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> list[Any]:
        """Messages that are whole now. Raises ValueError for what is not a frame."""
        self._pending += chunk
        messages: list[Any] = []
        at, view = 0, memoryview(self._pending)
        try:
            while len(view) - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, at)
                if length > FRAME_BYTES_MAX:
                    raise ValueError(f"A frame of {length} bytes is over the cap.")
                end = at + _LENGTH.size + length
                if len(view) < end:
                    break
                messages.append(self._decoder.decode(view[at + _LENGTH.size : end]))
                at = end
        finally:
            view.release()
        del self._pending[:at]
        return messages


class Port(asyncio.Protocol):
    """One end of a connection on which messages of one union come in."""

    def __init__(
        self,
        kind: Any,
        on_message: Callable[[Any], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._frames = Frames(kind)
        self._on_message = on_message
        self._on_lost = on_lost
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        # uvloop's transports do not derive from asyncio's classes.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            messages = self._frames.feed(data)
        except (ValueError, msgspec.DecodeError):
            self.close()
            return
        for message in messages:
            self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is gone."""
        self._transport = None
        self._on_lost()

    def send(self, message: msgspec.Struct) -> None:
        """Write one message; dropped if the other end is gone, since `on_lost` says so."""
        if self._transport is not None:
            self._transport.write(frame(message))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()
