"""Pictures as OpenAI's events: previews on the way, then each picture when it is whole.

Pictures come one after another: the previews before a `completed` event are its own. Each such
event has the usage of its picture, so that all of them add up to the bill.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

from inferd.admission.work import Work
from inferd.api import single
from inferd.api.errors import stream_event
from inferd.api.slices import Body, LongJson, base64_pieces
from inferd.clock import Clock
from inferd.errors import InferdError
from inferd.money import usd
from inferd.tasks.base import MICRO, NOTHING, Chunk, Usage
from inferd.tasks.every import Ending, Event
from inferd.tasks.text_to_image import ImageFormat, ImageRequest, Preview

Kind = Literal["image_generation", "image_edit"]
ShownQuality = Literal["auto", "low", "medium", "high"]


class InputTokensDetails(msgspec.Struct, frozen=True):
    """What the tokens of the input were."""

    text_tokens: int
    image_tokens: int = 0


class PictureUsage(msgspec.Struct, frozen=True):
    """Image units of one picture and what they cost. No model here counts a picture in tokens."""

    image_units: float
    estimated_cost: float
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What both events say of the picture."""

    size: str
    quality: ShownQuality
    output_format: ImageFormat
    background: Literal["opaque"] = "opaque"


class PartialImage(Shown, frozen=True, kw_only=True):
    """A preview."""

    type: str
    b64_json: str
    partial_image_index: int
    created_at: int


class CompletedImage(Shown, frozen=True, kw_only=True):
    """A whole picture."""

    type: str
    b64_json: str
    created_at: int
    model: str
    """Not OpenAI's: the plain answer names it as well."""
    usage: PictureUsage


class _Bill(NamedTuple):
    """All that was consumed up to a moment."""

    usage: Usage = NOTHING
    cost_nanos: int = 0


_encode = msgspec.json.Encoder().encode


class StreamTeller:
    """OpenAI's words, streamed."""

    def __init__(
        self, clock: Clock, kind: Kind, request: ImageRequest, quality: ShownQuality
    ) -> None:
        self._clock = clock
        self._kind = kind
        self._shown = Shown(
            size=f"{request.width}x{request.height}",
            quality=quality,
            output_format=request.image_format,
        )
        self._preview, self._picture = bytearray(), bytearray()
        self._index = 0
        self._told, self._bill = _Bill(), _Bill()
        """Up to the end of the picture before, and of this one."""

    def say(self, event: Event, work: Work) -> Body:
        """A preview when it is whole; a picture once something else follows it."""
        said: list[Iterator[bytes]] = []
        goes_on = isinstance(event, Chunk) and event.index == self._index
        if self._picture and not goes_on:
            said.append(self._completed(work))
        if isinstance(event, Chunk):
            self._index = event.index
            self._picture += event.data
            self._bill = _Bill(event.usage, work.cost_nanos)
        elif isinstance(event, Preview):
            self._preview += event.data
            if event.whole:
                said.append(self._partial(event.number))
        return chain.from_iterable(said) if said else b""

    def last(self, ending: Ending, work: Work) -> Body:
        """The last picture."""
        self._bill = _Bill(ending.usage, work.cost_nanos)
        return self._completed(work)

    def failed(self, error: InferdError) -> bytes:
        """The last event of a broken stream."""
        return b"event: error\n" + stream_event(error)

    def headers(self) -> single.Headers:
        """Those of events."""
        return []

    def _partial(self, number: int) -> Iterator[bytes]:
        content, self._preview = self._preview, bytearray()
        long, name = LongJson(), f"{self._kind}.partial_image"
        event = PartialImage(
            type=name,
            b64_json=long.text(base64_pieces(content)),
            partial_image_index=number,
            created_at=self._now(),
            **msgspec.structs.asdict(self._shown),
        )
        return _framed(name, long.pieces(_encode(event)))

    def _completed(self, work: Work) -> Iterator[bytes]:
        content, self._picture = self._picture, bytearray()
        usage = _between(self._told, self._bill)
        self._told = self._bill
        long, name = LongJson(), f"{self._kind}.completed"
        event = CompletedImage(
            type=name,
            b64_json=long.text(base64_pieces(content)),
            created_at=self._now(),
            model=work.order.card.name,
            usage=usage,
            **msgspec.structs.asdict(self._shown),
        )
        return _framed(name, long.pieces(_encode(event)))

    def _now(self) -> int:
        return self._clock.unix_ns() // 1_000_000_000


def _framed(name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    return chain([b"event: %b\ndata: " % name.encode()], pieces, [b"\n\n"])


def _between(before: _Bill, after: _Bill) -> PictureUsage:
    input_tokens = after.usage.input_tokens - before.usage.input_tokens
    output_tokens = after.usage.output_tokens - before.usage.output_tokens
    return PictureUsage(
        image_units=(after.usage.quantity - before.usage.quantity) / MICRO,
        estimated_cost=usd(after.cost_nanos - before.cost_nanos),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
        input_tokens_details=InputTokensDetails(input_tokens),
    )
