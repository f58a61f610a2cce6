"""A stopwatch that stands while the machine stands: a busy host stops a virtual one for seconds."""

from __future__ import annotations

import threading
import time

TICK_SECONDS = 0.01
LATE_SECONDS = 0.03
"""So much later than asked a sleeping thread is called on a machine that runs, at most."""


class _Watch(threading.Thread):
    """Sleeps one tick after the other; what it slept too long, the machine stood."""

    def __init__(self) -> None:
        super().__init__(name="awake", daemon=True)
        self._stood = 0.0
        self._slept_at = time.monotonic()
        self.start()

    def run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            self._stood += self._late()
            self._slept_at = time.monotonic()

    def _late(self) -> float:
        late = time.monotonic() - self._slept_at - TICK_SECONDS
        return late if late > LATE_SECONDS else 0.0

    def stood_seconds(self) -> float:
        return self._stood + self._late()


_WATCHES: list[_Watch] = []


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        if not _WATCHES:
            _WATCHES.append(_Watch())
        self._watch = _WATCHES[0]
        self._stood = self._watch.stood_seconds()
        self._cpu = time.process_time()
        self._began = time.monotonic()

    def stood_seconds(self) -> float:
        """How long the machine stood, or this process computed and let no other thread run."""
        return self._watch.stood_seconds() - self._stood

    def seconds(self) -> float:
        """What passed while the machine ran; no less than what this process computed."""
        passed = time.monotonic() - self._began - self.stood_seconds()
        return max(passed, time.process_time() - self._cpu)
