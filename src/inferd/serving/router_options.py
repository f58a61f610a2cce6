"""How the router behaves."""

from __future__ import annotations

import msgspec


class RouterOptions(msgspec.Struct, frozen=True):
    """How the router behaves."""

    queue_size_max: int = 512
    """Waiting requests for each model."""
    queue_seconds_max: float = 300
    """How long a request may wait, loading included."""
    idle_seconds: float = 300
    """Unload after so long without a request, counted from the last byte; -1 never, 0 at once."""
    memory_bytes: int = 0
    """For all local replicas together; 0: 80 % of the machine's or container's memory."""
    swap_wait_seconds: float = 10
    """How long requests of a loaded model may keep another model waiting."""
