"""How far a fetch is."""

from __future__ import annotations

from typing import Literal

import msgspec


class FetchProgress(msgspec.Struct, frozen=True):
    """One report."""

    model: str
    stage: Literal["download", "unpack", "transform"]
    done_bytes: int = 0
    total_bytes: int = 0

    def sentence(self) -> str:
        """For a person who waits."""
        if self.stage == "transform":
            return f"Preparing the weights of {self.model}"
        if self.stage == "unpack":
            return f"Unpacking {self.model}"
        if not self.total_bytes:
            return f"Fetching {self.model}"
        share = 100 * self.done_bytes // self.total_bytes
        return f"Fetching {self.model}: {share} % of {self.total_bytes / 1e6:.0f} MB"
