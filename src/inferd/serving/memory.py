"""How much memory this machine has for models."""

from __future__ import annotations

import os
from pathlib import Path

SHARE = 0.8
"""Of the machine or the container; the rest is for the gateway, the page cache and the user."""


def budget_bytes() -> int:
    """80 % of physical memory, or of the container's limit if that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup_limit(Path("/sys/fs/cgroup/memory.max"))
    return int(SHARE * min(total, limit or total))


def _cgroup_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
