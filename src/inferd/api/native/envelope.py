"""The envelope of every native answer: `request_id` and `inference_status` (deepinfra-api 3.1)."""

from __future__ import annotations

import msgspec

from inferd.admission.work import Work
from inferd.api.errors import stream_event
from inferd.api.single import Headers
from inferd.api.slices import Body
from inferd.errors import InferdError
from inferd.money import usd
from inferd.tasks.base import Usage
from inferd.tasks.every import Ending, Event


class InferenceStatus(msgspec.Struct, frozen=True):
    """How the call went and what it cost."""

    status: str
    """unknown, queued, running, succeeded or failed."""
    runtime_ms: int
    cost: float
    """Dollars."""
    tokens_generated: int | None
    tokens_input: int | None


def succeeded(work: Work, usage: Usage) -> InferenceStatus:
    """The status of a call that came to its end; null tokens where a task has none."""
    counts = work.order.card.unit() is None
    return InferenceStatus(
        status="succeeded",
        runtime_ms=work.runtime_ms,
        cost=usd(work.cost_nanos),
        tokens_generated=usage.output_tokens if counts else None,
        tokens_input=usage.input_tokens if counts else None,
    )


class NativeTeller:
    """What most native answers share: one JSON object at the end, nothing before it."""

    def say(self, event: Event, work: Work) -> bytes:
        """Nothing before the end."""
        return b""

    def last(self, ending: Ending, work: Work) -> Body:
        """The object; each task has its own."""
        raise NotImplementedError

    def failed(self, error: InferdError) -> bytes:
        """The last event of a broken stream."""
        return stream_event(error)

    def headers(self) -> Headers:
        """JSON."""
        return []
