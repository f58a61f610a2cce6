"""How far a fetch is, for a person who waits."""

from __future__ import annotations

from typing import Literal

import msgspec

Stage = Literal["waiting", "downloading", "unpacking", "converting", "ready"]

_VERBS: dict[Stage, str] = {
    "waiting": "Waiting for another download of",
    "downloading": "Fetching",
    "unpacking": "Unpacking",
    "converting": "Converting",
    "ready": "Fetched",
}


class FetchProgress(msgspec.Struct, frozen=True):
    """A moment of a fetch."""

    model: str
    stage: Stage
    done_bytes: int = 0
    """Downloaded so far, what an earlier attempt left included."""
    total_bytes: int = 0
    """0 while unknown."""

    @property
    def fraction(self) -> float | None:
        """Of the download, 0 to 1; None when the total is unknown."""
        if self.total_bytes <= 0:
            return None
        return min(1.0, self.done_bytes / self.total_bytes)

    def sentence(self) -> str:
        """Such as "Fetching owner/name, 41 % of 93 MB"."""
        text = f"{_VERBS[self.stage]} {self.model}"
        if self.stage != "downloading":
            return text
        if self.fraction is None:
            return f"{text}, {self.done_bytes / 1e6:.0f} MB"
        return f"{text}, {100 * self.fraction:.0f} % of {self.total_bytes / 1e6:.0f} MB"
