"""Shows a download in the terminal: a moving line, or a line each tenth where nothing moves."""

from __future__ import annotations

import sys

from inferd.catalog.progress import FetchProgress


class ProgressLines:
    """Writes to standard error, so that standard output stays the answer."""

    def __init__(self) -> None:
        self._moves = sys.stderr.isatty()
        self._last = ""

    def show(self, progress: FetchProgress) -> None:
        """One report."""
        sentence = progress.sentence()
        if self._moves:
            sys.stderr.write(f"\r\x1b[K{sentence}")
            if progress.stage == "ready":
                sys.stderr.write("\n")
            sys.stderr.flush()
            return
        tenth = int(10 * (progress.fraction or 0))
        mark = f"{progress.model} {progress.stage} {tenth}"
        if mark != self._last:
            self._last = mark
            sys.stderr.write(f"{sentence}\n")
            sys.stderr.flush()
