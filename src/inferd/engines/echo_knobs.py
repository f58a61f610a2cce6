"""What turns the echo engine slow or faulty: its card's tags, and words in a request's own text."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable
from typing import Any

from inferd.errors import EngineFailed
from inferd.tasks.every import Request

_MARK = "echo:"
_WORD = re.compile(r"echo:([a-z_]+)=(\d{1,9}(?:\.\d{1,6})?)")
_OF_REQUESTS = frozenset({"token_ms", "prefill_ms", "fail_after", "crash_after", "compute_ms"})
"""The others are about loading."""


class Knobs:
    """Names and numbers; 0 where nothing is said."""

    def __init__(self, values: dict[str, float] | None = None) -> None:
        self._values = values or {}

    @staticmethod
    def of_card(tags: Iterable[str]) -> Knobs:
        """Those of a card."""
        pairs = (tag.removeprefix(_MARK).partition("=") for tag in tags if tag.startswith(_MARK))
        return Knobs({name: float(value) for name, _, value in pairs})

    def of_request(self, request: Request) -> Knobs:
        """These, and what the request's texts say otherwise."""
        said = [pair for text in _texts(request) if _MARK in text for pair in _WORD.findall(text)]
        if not said:
            return self
        asked = {name: float(value) for name, value in said if name in _OF_REQUESTS}
        return Knobs({**self._values, **asked})

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def number(self, name: str, otherwise: float = 0.0) -> float:
        """One of them."""
        return self._values.get(name, otherwise)

    async def pause(self, name: str, times: int = 1) -> None:
        """So many milliseconds, so often; a turn of the loop if there are none."""
        await asyncio.sleep(self._values.get(name, 0.0) * times / 1000)

    def misbehave(self, output: int) -> None:
        """After so much output: fail, or end the process."""
        if output >= self._values.get("crash_after", float("inf")):
            os._exit(3)
        if output >= self._values.get("fail_after", float("inf")):
            raise EngineFailed("The echo model was told to fail.")


def _texts(value: Any) -> Iterable[str]:
    """All text in a request, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for one in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _texts(one)
    else:
        for name in getattr(value, "__struct_fields__", ()):
            yield from _texts(getattr(value, name))
