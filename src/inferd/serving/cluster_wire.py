"""What a gateway and the supervisor of its machine say to each other, in the frames of `wire`.

    gateway                        supervisor
    SlotAsk ──────────────────────► its router: queue, load, swap
    ◄──────────── Waiting, Granted, or Refused
    (talks to the worker itself)
    SlotBack ─────────────────────► the next one's turn

The socket pair is made before the gateway starts; there is nothing to connect to.
"""

from __future__ import annotations

import msgspec

from inferd.errors import BY_CODE, EngineFailed, InferdError
from inferd.serving.replica import Stage
from inferd.serving.snapshot import RouterSnapshot
from inferd.serving.wire import Failure, failure_of
from inferd.tasks.base import Tier


class Boot(msgspec.Struct, frozen=True, array_like=True, tag="boot"):
    """Who you are. Once, first."""

    index: int
    """From 0; the same after a restart."""
    settings: bytes
    """The supervisor's settings, encoded by whoever reads them."""
    local_secret: str
    """The admin credential of this machine's command line."""
    memory_bytes: int
    """For all models together."""


class Up(msgspec.Struct, frozen=True, array_like=True, tag="up"):
    """The gateway takes connections."""

    admin_secret: str | None
    """Of the token that was made because this is the installation's first start."""
    admin_password: str | None


class Broken(msgspec.Struct, frozen=True, array_like=True, tag="broken"):
    """The gateway cannot start, and this is why."""

    sentence: str


class SlotAsk(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """A request wants a slot. What it asks for is between its gateway and the worker."""

    request_id: str
    account_id: str
    model: str
    work: int
    slots: int
    tier: Tier
    fail_fast: bool


class SlotBack(msgspec.Struct, frozen=True, array_like=True, tag="back"):
    """The request needs its slot, or its place in line, no more."""

    request_id: str
    replica_died: bool = False


class Hung(msgspec.Struct, frozen=True, array_like=True, tag="hung"):
    """The worker does not stop a request."""

    replica_id: str


class Look(msgspec.Struct, frozen=True, array_like=True, tag="look"):
    """Show the router, and what the other gateways count."""

    number: int
    metrics: bool


class Counted(msgspec.Struct, frozen=True, array_like=True, tag="counted"):
    """What this gateway counts; answers `Count`."""

    number: int
    text: bytes


class Waiting(msgspec.Struct, frozen=True, array_like=True, tag="waiting"):
    """The request waits, or waits for something else than before."""

    request_id: str
    stage: Stage


class Granted(msgspec.Struct, frozen=True, array_like=True, tag="granted"):
    """The request has its slot."""

    request_id: str
    replica_id: str
    address: str | None
    """The worker's socket; None: the model is served elsewhere, by its card."""


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The request gets no slot."""

    request_id: str
    failure: Failure
    retry_after_seconds: float | None


class Loading(msgspec.Struct, frozen=True, array_like=True, tag="loading"):
    """How far the loads are: model → sentence. Empty when none is under way."""

    sentences: dict[str, str]


class Count(msgspec.Struct, frozen=True, array_like=True, tag="count"):
    """Say what you count."""

    number: int


class Shown(msgspec.Struct, frozen=True, array_like=True, tag="shown"):
    """Answers `Look`."""

    number: int
    router: RouterSnapshot
    metrics: dict[int, bytes]
    """Of the other gateways that answered in time, by index."""


ToSupervisor = Up | Broken | SlotAsk | SlotBack | Hung | Look | Counted
ToGateway = Boot | Waiting | Granted | Refused | Loading | Count | Shown


def refused(request_id: str, error: InferdError) -> Refused:
    """Pack a refusal."""
    return Refused(request_id, failure_of(error), error.retry_after_seconds)


def refusal(message: Refused) -> InferdError:
    """Unpack it as the class it was."""
    failure = message.failure
    kind = BY_CODE.get(failure.code, EngineFailed)
    return kind(
        failure.message,
        param=failure.param,
        detail=failure.detail,
        retry_after_seconds=message.retry_after_seconds,
    )
