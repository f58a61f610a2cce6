"""Stop strings over streamed text: what may be the beginning of one is held back.

Linear in the text: each feed looks at the new text and at most the longest stop string before it.
"""

from __future__ import annotations


class StopStrings:
    """Feed text as it comes; get what can be shown."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.matched: str | None = None
        """The stop string that ended the text."""
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> str:
        """Text to show now. After a match: nothing more."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        pending = self._held + text
        # The one that is complete first, so that it does not matter how the text was cut.
        found = [
            (at + len(stop), at, stop) for stop in self._stops if (at := pending.find(stop)) >= 0
        ]
        if found:
            _, at, self.matched = min(found)
            self._held = ""
            return pending[:at]
        keep = self._possible_beginning(pending)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep]

    def flush(self) -> str:
        """What was held back, once it is clear that no stop string follows."""
        rest, self._held = self._held, ""
        return rest

    def _possible_beginning(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        longest = max(len(stop) for stop in self._stops)
        for size in range(min(longest - 1, len(text)), 0, -1):
            end = text[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0
