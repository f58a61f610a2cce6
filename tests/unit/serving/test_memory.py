"""What a process has loaded is left alone by the collector of cycles."""

from __future__ import annotations

import gc

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
