"""Which model to load, unload or drain. Pure: state and time in, decisions out.

Requests for a model that is loaded go on being served until another model has waited
`swap_wait_seconds`; then the loaded one drains: nothing running is lost, nothing new begins.
Of several waiting models the one with the longest line goes first, so that a swap pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

State = Literal["cold", "loading", "ready", "draining", "stopping"]

LINGER_SECONDS = 0.05
"""A model that just became idle stays so long, since its client is about to ask again."""


class ModelView(msgspec.Struct, frozen=True):
    """One model as the scheduler sees it."""

    model: str
    state: State
    memory_bytes: int
    """What it takes, or would take."""
    in_flight: int = 0
    queued: int = 0
    oldest_seconds: float = 0.0
    """When the longest waiting request came."""
    idle_since_seconds: float = 0.0
    """When the last byte went out."""
    retry_at_seconds: float = 0.0
    """Not to be started before: it failed."""
    wanted: bool = False
    """To be started although nobody waits: it died in use."""


class Policy(msgspec.Struct, frozen=True):
    """Limits that decisions keep."""

    memory_bytes: int
    idle_seconds: float
    swap_wait_seconds: float


class Start(msgspec.Struct, frozen=True):
    """Load it now; its memory is free."""

    model: str


class Stop(msgspec.Struct, frozen=True):
    """Unload it; nothing runs on it."""

    model: str
    evicted: bool
    """For another model's sake, not for its own idleness."""


class Drain(msgspec.Struct, frozen=True):
    """Grant nothing more on it; it is stopped when it is empty."""

    model: str


class Refuse(msgspec.Struct, frozen=True):
    """It can never fit: everybody who waits is told."""

    model: str
    needed_bytes: int


Decision = Start | Stop | Drain | Refuse


class Plan(msgspec.Struct, frozen=True):
    """What to do now, and when to look again at the latest (None: at the next event)."""

    decisions: tuple[Decision, ...]
    wake_at_seconds: float | None


def plan(models: Sequence[ModelView], now: float, policy: Policy) -> Plan:
    """Decide for all models together."""
    decisions: list[Decision] = [
        Stop(m.model, evicted=True) for m in models if m.state == "draining" and not m.in_flight
    ]
    decisions += _unload_idle(models, now, policy)
    stopped = {d.model for d in decisions if isinstance(d, Stop)}
    decisions += _make_room([m for m in models if m.model not in stopped], models, now, policy)
    return Plan(tuple(decisions), _wake_at(models, now, policy))


def _is_idle(model: ModelView) -> bool:
    return model.state == "ready" and not model.in_flight and not model.queued


def _unload_idle(models: Sequence[ModelView], now: float, policy: Policy) -> list[Decision]:
    if policy.idle_seconds < 0:
        return []
    return [
        Stop(m.model, evicted=False)
        for m in models
        if _is_idle(m) and m.idle_since_seconds + policy.idle_seconds <= now
    ]


def _urgency(model: ModelView, now: float, policy: Policy) -> tuple[bool, float, int, float, str]:
    """Sort key: overdue ones first, oldest before newest; then the longest line."""
    overdue = _is_overdue(model, now, policy)
    return (
        not overdue,
        model.oldest_seconds if overdue else 0.0,
        -model.queued,
        model.oldest_seconds,
        model.model,
    )


def _is_overdue(model: ModelView, now: float, policy: Policy) -> bool:
    return model.queued > 0 and model.oldest_seconds + policy.swap_wait_seconds <= now


def _make_room(
    usable: Sequence[ModelView], models: Sequence[ModelView], now: float, policy: Policy
) -> list[Decision]:
    free = policy.memory_bytes - sum(m.memory_bytes for m in models if m.state != "cold")
    waiting = [
        m
        for m in usable
        if m.state == "cold" and (m.queued or m.wanted) and m.retry_at_seconds <= now
    ]
    decisions: list[Decision] = []
    for model in sorted(waiting, key=lambda m: _urgency(m, now, policy)):
        if model.memory_bytes > policy.memory_bytes:
            decisions.append(Refuse(model.model, model.memory_bytes))
        elif model.memory_bytes <= free:
            decisions.append(Start(model.model))
            free -= model.memory_bytes
        elif model.queued:
            # Room is made for one at a time: the next one's need is another question by then.
            return decisions + _evict_for(model, usable, free, (now, policy))
    return decisions


def _evict_for(
    wanting: ModelView, usable: Sequence[ModelView], free: int, at: tuple[float, Policy]
) -> list[Decision]:
    now, policy = at
    coming = sum(m.memory_bytes for m in usable if m.state in ("draining", "stopping"))
    missing = wanting.memory_bytes - free - coming
    decisions: list[Decision] = []
    for model in _victims(wanting, usable, now, policy):
        if missing <= 0:
            break
        missing -= model.memory_bytes
        busy = model.in_flight or model.queued
        decisions.append(Drain(model.model) if busy else Stop(model.model, evicted=True))
    return decisions


def _victims(
    wanting: ModelView, usable: Sequence[ModelView], now: float, policy: Policy
) -> list[ModelView]:
    """Who may go, best first: idle ones, loads nobody waits for, and busy ones once overdue."""
    idle = [m for m in usable if _is_idle(m) and m.idle_since_seconds + LINGER_SECONDS <= now]
    unwanted = [m for m in usable if m.state == "loading" and not m.queued and not m.wanted]
    found = sorted(idle, key=lambda m: (m.idle_since_seconds, m.model)) + unwanted
    if _is_overdue(wanting, now, policy):
        busy = [m for m in usable if m.state == "ready" and (m.in_flight or m.queued)]
        found += sorted(busy, key=lambda m: (m.in_flight + m.queued, m.model))
    return [m for m in found if m.memory_bytes > 0]


def _wake_at(models: Sequence[ModelView], now: float, policy: Policy) -> float | None:
    times: list[float] = []
    somebody_waits = any(m.state == "cold" and m.queued for m in models)
    for model in models:
        if _is_idle(model):
            if policy.idle_seconds >= 0:
                times.append(model.idle_since_seconds + policy.idle_seconds)
            if somebody_waits:
                times.append(model.idle_since_seconds + LINGER_SECONDS)
        if model.state == "cold" and (model.queued or model.wanted):
            times += [model.retry_at_seconds, model.oldest_seconds + policy.swap_wait_seconds]
    return min((time for time in times if time > now), default=None)
