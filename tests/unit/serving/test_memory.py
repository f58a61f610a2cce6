"""What a process has loaded is left alone by the collector of cycles, and large blocks grow."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from inferd.serving.memory import keep_what_is_loaded


def test_what_is_there_is_walked_no_more_and_what_comes_is() -> None:
    before = gc.get_freeze_count()
    try:
        keep_what_is_loaded()
        assert gc.get_freeze_count() > before + 1000
        assert gc.isenabled()
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        assert gc.collect() >= 1
    finally:
        gc.unfreeze()


IS_IN_HEAP = """
import ctypes, re
from pathlib import Path

# glibc remembers that a block of this size was freed.
bytearray(20 << 20)
block = bytearray(2 << 20)
at = ctypes.addressof(ctypes.c_char.from_buffer(block))
maps = Path("/proc/self/maps").read_text()
start, end = re.search(r"([0-9a-f]+)-([0-9a-f]+) .*heap", maps).groups()
print(int(start, 16) <= at < int(end, 16))
"""
PLACED = """
from inferd.serving.memory import give_large_blocks_their_own_place
give_large_blocks_their_own_place()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(("script", "in_heap"), [(IS_IN_HEAP, True), (PLACED + IS_IN_HEAP, False)])
def test_large_blocks_leave_the_heap(script: str, in_heap: bool) -> None:
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == str(in_heap)
