"""One structured record for each request, at its end. Never a prompt, an output or a secret."""

from __future__ import annotations

import logging

import msgspec

from inferd.api.exchange import Exchange
from inferd.clock import Clock
from inferd.errors import InferdError

_log = logging.getLogger("inferd.request")


class RequestRecord(msgspec.Struct, omit_defaults=True):
    """What is kept of a request."""

    request_id: str
    method: str
    route: str
    status: int
    total_ms: int
    account: str | None = None
    token: str | None = None
    model: str | None = None
    ending: str | None = None
    stage: str | None = None
    queue_ms: int | None = None
    first_event_ms: int | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    cost_nanos: int | None = None
    replica: str | None = None
    code: str | None = None
    detail: str | None = None


class RequestLog:
    """Writes records as text for people or as JSON for machines."""

    def __init__(self, clock: Clock, *, as_json: bool) -> None:
        self._clock = clock
        self._as_json = as_json

    def write(self, exchange: Exchange, failure: InferdError | None, began_seconds: float) -> None:
        """Log one request."""
        if not _log.isEnabledFor(logging.INFO):
            return
        total_ms = round((self._clock.seconds() - began_seconds) * 1000)
        record = RequestRecord(
            exchange.request_id,
            exchange.method,
            exchange.route,
            499 if exchange.gone else exchange.status,
            total_ms,
        )
        if not exchange.anonymous:
            record.account, record.token = exchange.caller.account_id, exchange.caller.token_id
        if failure is not None:
            record.code, record.detail = failure.code, failure.detail
        _add_work(record, exchange)
        _log.info("%s", self._line(record))

    def _line(self, record: RequestRecord) -> str:
        if self._as_json:
            return msgspec.json.encode(record).decode()
        names = RequestRecord.__struct_fields__
        values = msgspec.structs.astuple(record)
        return " ".join(
            f"{name}={value}"
            for name, value in zip(names, values, strict=True)
            if value is not None
        )


def _add_work(record: RequestRecord, exchange: Exchange) -> None:
    work = exchange.work
    if work is None:
        return
    record.model, record.queue_ms = work.order.card.name, work.queue_ms
    record.replica = work.flight.replica_id
    entry = work.entry
    if entry is not None:
        record.ending, record.stage = entry.status, entry.stage
        record.first_event_ms = entry.first_event_ms
        record.input_tokens, record.cached_tokens = entry.input_tokens, entry.cached_tokens
        record.output_tokens, record.cost_nanos = entry.output_tokens, entry.cost_nanos
