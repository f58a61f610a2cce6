"""How much memory this machine has for models, and how processes keep theirs."""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress
from pathlib import Path

SHARE = 0.8
"""Of the machine or the container; the rest is for the gateway, the page cache and the user."""

LARGE_BYTES = 1024 * 1024
"""Such a block of memory has its own place in the address space, and grows there."""
_M_MMAP_THRESHOLD = -3
"""malloc.h"""


def budget_bytes() -> int:
    """80 % of physical memory, or of the container's limit if that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup_limit(Path("/sys/fs/cgroup/memory.max"))
    return int(SHARE * min(total, limit or total))


def keep_what_is_loaded() -> None:
    """Call once a process has started: what is in memory now stays for good.

    The collector of cycles would walk all of it again and again, wherever requests allocate:
    a third of the CPU of a short chat through the gateway (`make bench`).
    """
    gc.collect()
    gc.freeze()


def give_large_blocks_their_own_place() -> None:
    """Call at the start of a process that takes in long bodies.

    glibc raises the bound by itself, to as much as 32 MB. A body that grew beyond it was copied to
    its new place in one go: up to 60 ms for which nothing else ran.
    """
    # Other C libraries have no such bound.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


def _cgroup_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
