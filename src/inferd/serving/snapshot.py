"""What the router shows of itself."""

from __future__ import annotations

import msgspec

from inferd.serving.deployment import Deployment
from inferd.serving.scheduler import State


class ModelSnapshot(msgspec.Struct, frozen=True):
    """One model that was asked for."""

    model: str
    state: State
    replicas: int
    slots: int
    in_flight: int
    queued: int
    memory_bytes: int
    pid: int | None


class GatewaySnapshot(msgspec.Struct, frozen=True):
    """One of several gateways of this machine."""

    index: int
    pid: int
    in_flight: int
    """Requests that have a slot or wait for one."""


class RouterSnapshot(msgspec.Struct, frozen=True):
    """All of them, and totals since start."""

    models: tuple[ModelSnapshot, ...]
    loads: int
    evictions: int
    deaths: int
    gateways: tuple[GatewaySnapshot, ...] = ()
    """Empty if there is one alone."""


def model_snapshot(deployment: Deployment) -> ModelSnapshot:
    """One model as it is now."""
    residency = deployment.residency
    if residency is None:
        return ModelSnapshot(deployment.card.name, "cold", 0, 0, 0, len(deployment.queue), 0, None)
    return ModelSnapshot(
        model=deployment.card.name,
        state=residency.state,
        replicas=int(residency.state in ("ready", "draining")),
        slots=residency.slots,
        in_flight=residency.in_flight,
        queued=len(deployment.queue),
        memory_bytes=residency.memory_bytes,
        pid=None if residency.facts is None else residency.facts.pid,
    )
