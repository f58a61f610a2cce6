"""Says an answer as Anthropic does: content blocks, one after the other.

A block is open until something else comes: thinking, text, a call, each call its own block.
Plain bodies and streams follow the same walk over the events, so they hold the same blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from inferd.admission.work import Work
from inferd.api.anthropic.prompt import shown_call_id
from inferd.api.anthropic.wire import (
    AnthropicUsage,
    BlockOut,
    MessagesOut,
    OutputTokensDetails,
    TextOut,
    ThinkingOut,
    ToolUseOut,
)
from inferd.api.errors import anthropic_error
from inferd.errors import InferdError
from inferd.money import usd
from inferd.tasks.base import Usage
from inferd.tasks.text_generation import CallDelta, Done, FinishReason, Text

Kind = Literal["thinking", "text", "tool_use"]

STOP_REASONS: dict[FinishReason, str] = {
    "eos": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}

_encode = msgspec.json.Encoder().encode

_DELTA: dict[Kind, bytes] = {
    "thinking": b'"thinking_delta","thinking":',
    "text": b'"text_delta","text":',
    "tool_use": b'"input_json_delta","partial_json":',
}


class Piece(NamedTuple):
    """New text of one block."""

    kind: Kind
    text: str
    """Of a tool_use: of its arguments' JSON."""
    call: CallDelta | None = None


class _Open(NamedTuple):
    """The block that is being said."""

    kind: Kind
    call_index: int | None = None


def pieces(event: Text, open_call: int | None) -> Iterator[Piece]:
    """What is new, in the order of the blocks: a call that goes on ends before text follows it."""
    for call in event.calls:
        if call.index == open_call:
            yield Piece("tool_use", call.arguments, call)
    if event.reasoning:
        yield Piece("thinking", event.reasoning)
    if event.text:
        yield Piece("text", event.text)
    for call in event.calls:
        if call.index != open_call:
            yield Piece("tool_use", call.arguments, call)


class _Block(NamedTuple):
    """A block of a plain body, while it is collected."""

    first: Piece
    texts: list[str]


class MessageAnswer:
    """One answer; either a stream or a body."""

    def __init__(self, *, id_: str, model: str) -> None:
        self._id, self._model = id_, model
        self._started = False
        self._open: _Open | None = None
        self._index = -1
        """The open block's, or the last one's."""
        self._blocks: list[_Block] = []
        self._text_head = b""

    # A stream:

    def text(self, event: Text, work: Work) -> bytes:
        """Events for what is new; the first time, the message's beginning before them."""
        if self._text_head and not event.reasoning and not event.calls:
            return b"%b%b}}\n\n" % (self._text_head, _encode(event.text)) if event.text else b""
        out = [] if self._started else [self._start(event.usage, work)]
        for piece in pieces(event, self._open_call()):
            if not self._goes_on(piece):
                out += [self._stop_block(), self._start_block(piece)]
            if piece.text:
                out.append(b"%b%b}}\n\n" % (self._delta_head(piece.kind), _encode(piece.text)))
        return b"".join(out)

    def last(self, done: Done, work: Work) -> bytes:
        """The end of the block, why the answer ended, and what it used."""
        out = [] if self._started else [self._start(done.usage, work)]
        reason, stopped_at = _ending(done)
        delta = {"stop_reason": reason, "stop_sequence": stopped_at}
        used = usage_out(done.usage, cost=usd(work.cost_nanos))
        out += [
            self._stop_block(),
            _event("message_delta", {"delta": delta, "usage": used}),
            _event("message_stop", {}),
        ]
        return b"".join(out)

    def failed(self, error: InferdError) -> bytes:
        """Anthropic's envelope as an event."""
        return b"event: error\ndata: %b\n\n" % _encode(anthropic_error(error))

    # A plain body:

    def fold(self, event: Text) -> None:
        """Keep what is new."""
        for piece in pieces(event, self._open_call()):
            if not self._goes_on(piece):
                self._opened(piece)
                self._blocks.append(_Block(piece, []))
            self._blocks[-1].texts.append(piece.text)

    def body(self, done: Done, work: Work) -> bytes:
        """The whole message."""
        reason, stopped_at = _ending(done)
        blocks = [_block_out(block) for block in self._blocks]
        used = usage_out(done.usage, cost=usd(work.cost_nanos), tier=_tier(work))
        return _encode(
            MessagesOut(
                id=self._id,
                model=self._model,
                content=blocks,
                stop_reason=reason,
                stop_sequence=stopped_at,
                usage=used,
            )
        )

    # Both:

    def _open_call(self) -> int | None:
        return self._open.call_index if self._open else None

    def _goes_on(self, piece: Piece) -> bool:
        return self._open == _Open(piece.kind, piece.call.index if piece.call else None)

    def _opened(self, piece: Piece) -> None:
        self._open = _Open(piece.kind, piece.call.index if piece.call else None)
        self._index += 1

    def _start(self, usage: Usage, work: Work) -> bytes:
        self._started = True
        used = usage_out(usage, tier=_tier(work))
        message = MessagesOut(id=self._id, model=self._model, content=[], usage=used)
        return _event("message_start", {"message": message})

    def _start_block(self, piece: Piece) -> bytes:
        self._opened(piece)
        if piece.kind == "text":
            self._text_head = self._delta_head("text")
        block = _block_out(_Block(piece, []))
        return _event("content_block_start", {"index": self._index, "content_block": block})

    def _stop_block(self) -> bytes:
        if self._open is None:
            return b""
        signature = b""
        if self._open.kind == "thinking":
            delta = {"type": "signature_delta", "signature": ""}
            signature = _event("content_block_delta", {"index": self._index, "delta": delta})
        self._open, self._text_head = None, b""
        return signature + _event("content_block_stop", {"index": self._index})

    def _delta_head(self, kind: Kind) -> bytes:
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":%b' % (self._index, _DELTA[kind])
        )


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, **fields}))


def _ending(done: Done) -> tuple[str, str | None]:
    reason = done.reasons[0]
    stopped_at = done.stopped_at[0] if done.stopped_at and reason == "stop_sequence" else None
    return STOP_REASONS[reason], stopped_at


def _tier(work: Work) -> str:
    """The tier that is paid, in Anthropic's words; it has none for flex."""
    return "priority" if work.paid_tier == "priority" else "standard"


def _block_out(block: _Block) -> BlockOut:
    text = "".join(block.texts)
    if block.first.call is not None:
        call = block.first.call
        return ToolUseOut(shown_call_id(call.id), call.name, _arguments(text))
    return ThinkingOut(text) if block.first.kind == "thinking" else TextOut(text)


def _arguments(text: str) -> dict[str, Any]:
    """The object that the model wrote; {} for one that the token budget cut off."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}


def usage_out(
    usage: Usage, *, cost: float | None = None, tier: str | None = None
) -> AnthropicUsage:
    """The usage object; cost and tier where they are known and expected."""
    unset = msgspec.UNSET
    return AnthropicUsage(
        input_tokens=usage.input_tokens - usage.cached_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputTokensDetails(usage.reasoning_tokens)
        if cost is not None
        else unset,
        service_tier=unset if tier is None else tier,
        estimated_cost=unset if cost is None else cost,
    )
