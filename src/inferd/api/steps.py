"""Long work on a body, in steps between which other threads run.

A thread that computes holds the interpreter's lock. Without a pause the loop waits for it 5 ms and
to the end of the call that runs, as often as it has waited for sockets, and so for each such
thread. A thread that sleeps for a moment hands the lock over at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

STEP_BYTES = 512 * 1024
"""What is of one step may be done in the loop."""
PAUSE_SECONDS = 0.0002


def steps(start: int, end: int, size: int) -> Iterator[int]:
    """Where each step begins. Sleeps between them."""
    for at in range(start, end, size):
        if at > start:
            time.sleep(PAUSE_SECONDS)
        yield at


def find(body: bytes | bytearray, word: bytes, start: int = 0) -> int:
    """Where the word begins, from `start` on; -1 if nowhere."""
    # It may begin in one step and end in the next.
    size = STEP_BYTES + len(word) - 1
    for at in steps(start, len(body), STEP_BYTES):
        found = body.find(word, at, at + size)
        if found >= 0:
            return found
    return -1


def count(body: bytes | bytearray, word: bytes, start: int, end: int) -> int:
    """How often a word that never overlaps itself stands between `start` and `end`."""
    size = STEP_BYTES + len(word) - 1
    found = 0
    for at in steps(start, end, STEP_BYTES):
        found += body.count(word, at, min(end, at + size))
    return found
