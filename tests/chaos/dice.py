"""The seed of a run, printed, so that what chance found can be found again."""

from __future__ import annotations

import os
import random
import time


def dice() -> random.Random:
    """Random numbers of a new seed, or of `CHAOS_SEED` from the environment."""
    seed = int(os.environ.get("CHAOS_SEED") or time.time_ns() % 1_000_000)
    print(f"CHAOS_SEED={seed}", flush=True)
    return random.Random(seed)
