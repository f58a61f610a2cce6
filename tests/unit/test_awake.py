"""The tests' own stopwatch counts waiting and computing, or no bound of time could fail."""

from __future__ import annotations

import re
import threading
import time

from tests.awake import Stopwatch


def test_waiting_counts() -> None:
    clock = Stopwatch()
    threading.Event().wait(0.3)
    assert 0.3 <= clock.seconds() + clock.stood_seconds() < 30
    # Of thirty ticks some may be late, not all.
    assert clock.seconds() > 0.1


def test_computing_that_lets_no_thread_run_counts() -> None:
    clock, before = Stopwatch(), time.process_time()
    while time.process_time() - before < 0.3:
        # One call of the library holds the interpreter's lock for a while.
        re.match(r"(a+)+b", "a" * 19)
    assert clock.seconds() >= 0.3
